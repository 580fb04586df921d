"""A surface that was kept is the surface that would be computed, whatever lies in the folder."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Command, Result, call
from ffn_bench.configuration.schema import LandscapeConfig
from ffn_bench.landscape import command, figures, surface
from ffn_bench.run_folder.files import Folder

Look = Callable[..., list[tuple[dict[str, Any], bool]]]


@pytest.fixture
def look(
    ffn: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Look:
    """`look("run=…")` gives every surface of `ffn-landscape run=…` and whether it was kept; draws nothing."""
    seen: list[tuple[dict[str, Any], bool]] = []
    cached = surface.cached

    def watched(*arguments: Any) -> Any:
        seen.append(cached(*arguments))
        return seen[-1]

    monkeypatch.setattr(surface, "cached", watched)
    monkeypatch.setattr(command.Drawings, "write", lambda *_: None)
    for name in ("lines", "surface", "plane"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    landscape = partial(call, command.main, "ffn-landscape", monkeypatch, capsys)
    for name, options in (("a", []), ("b", ["seed=1"]), ("c", ["epochs=4"])):
        common = ["data=moons", "data.n_samples=120", "model.hidden=[3]", "epochs=3", "trajectory=true"]
        assert ffn(*common, *options, f"name={name}").code == 0

    def looked(*arguments: str) -> list[tuple[dict[str, Any], bool]]:
        seen.clear()
        result: Result = landscape(*arguments)
        assert result.code == 0, (arguments, result.err)
        return list(seen)

    return looked


CHANGES = {
    "at": ["at=best", "at=epoch:1"],
    "run": ["run=outputs/b", "run=outputs/c", "run=[outputs/a,outputs/b]"],
    "part": ["part=val", "part=test"],
    "samples": ["samples=30"],
    "directions": ["directions=1", "directions=3"],
    "points": ["points=9"],
    "extent": ["extent=0.5"],
    "seed": ["seed=1"],
    "curvature": [],  # which has no surfaces
    "tensorboard": [],  # nothing else is computed
    "save": [],
}
BASE = ["directions=2", "points=5"]


def same(a: list[tuple[dict[str, Any], bool]], b: list[tuple[dict[str, Any], bool]]) -> bool:
    return [x.keys() for x, _ in a] == [x.keys() for x, _ in b] and all(
        torch.equal(x[name], y[name]) for (x, _), (y, _) in zip(a, b, strict=True) for name in x
    )


def test_every_key_alone_gives_what_it_gives_in_a_fresh_folder(look: Look) -> None:
    assert CHANGES.keys() == set(LandscapeConfig.__dataclass_fields__)
    base = look(*BASE, "run=outputs/a", "save=kept")
    assert not any(old for _, old in base)
    for number, change in enumerate(change for changes in CHANGES.values() for change in changes):
        key = change.partition("=")[0]
        arguments = [a for a in ("run=outputs/a", *BASE) if not a.startswith(f"{key}=")] + [change]
        shutil.copytree("kept", f"kept-{number}")
        cached = look(*arguments, f"save=kept-{number}")
        fresh = look(*arguments, f"save=fresh-{number}")
        assert same(cached, fresh), change
    again = look(*BASE, "run=outputs/a", "save=kept")
    assert same(again, base)
    assert all(old for _, old in again)


VALID = {
    "grid": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "true": torch.ones(4, dtype=torch.float64),
}
SHAPES: dict[str, tuple[int, ...]] = {"grid": (2, 3), "true": (4,)}


def kept_in(folder: Path) -> tuple[dict[str, Any], bool]:
    def toy(shown: Any, of: int) -> dict[str, Any]:
        return VALID

    return surface.cached(Folder(folder), toy, {"of": 1}, SHAPES, None)  # type: ignore[arg-type]


def archive(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def zipped(content: bytes) -> bytes:
    """An archive whose members are all of one content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for name in ("key", *VALID):
            zip_file.writestr(f"{name}.npy", content)
    return file.getvalue()


HEAD = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
G = VALID["grid"].numpy()
DAMAGED: dict[str, Callable[[bytes, dict[str, Any]], bytes]] = {
    "empty": lambda content, a: b"",
    "text": lambda content, a: b"not an archive",
    "cut": lambda content, a: content[: len(content) // 2],
    "a pickle": lambda content, a: pickle.dumps({"key": 1}),
    "bomb": lambda content, a: zipped(b"\0" * 50_000_000),
    "claims too much": lambda content, a: zipped(HEAD.ljust(127) + b"\n"),
    "lacks an array": lambda content, a: archive(key=a["key"], true=a["true"]),
    "no key": lambda content, a: archive(grid=G, true=a["true"]),
    "another key": lambda content, a: archive(**{**a, "key": np.zeros(32, np.uint8)}),
    "a key of text": lambda content, a: archive(**{**a, "key": np.array("x")}),
    "of another shape": lambda content, a: archive(**{**a, "grid": G.T.copy()}),
    "too short": lambda content, a: archive(**{**a, "grid": G[:1]}),
    "transposed in memory": lambda content, a: archive(**{**a, "grid": np.asfortranarray(G)}),
    "of another type": lambda content, a: archive(**{**a, "grid": G.astype(np.float32)}),
    "of whole numbers": lambda content, a: archive(**{**a, "grid": G.astype(np.int64)}),
    "of the other endian": lambda content, a: archive(**{**a, "grid": G.astype(">f8")}),
    "of objects": lambda content, a: archive(**{**a, "grid": np.array([{}], dtype=object)}),
    "of text": lambda content, a: archive(**{**a, "grid": np.full((2, 3), "x")}),
}


def assert_computed(folder: Path) -> None:
    surface, old = kept_in(folder)
    assert not old
    assert all(torch.equal(surface[name], VALID[name]) for name in VALID)


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_kept_surface_is_computed_again(kind: str, tmp_path: Path) -> None:
    assert_computed(tmp_path)
    (file,) = tmp_path.glob("surface-*.npz")
    file.write_bytes(DAMAGED[kind](file.read_bytes(), dict(np.load(file))))
    assert_computed(tmp_path)
    surface, old = kept_in(tmp_path)
    assert old
    assert all(torch.equal(surface[name], VALID[name]) for name in VALID)


def test_a_flipped_byte_gives_the_same_surface(tmp_path: Path) -> None:
    assert_computed(tmp_path)
    (file,) = tmp_path.glob("surface-*.npz")
    content = file.read_bytes()
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        surface, _ = kept_in(tmp_path)
        assert all(torch.equal(surface[name], VALID[name]) for name in VALID), position


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    assert_computed(tmp_path)
    (file,) = tmp_path.glob("surface-*.npz")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert_computed(tmp_path)
    assert kept_in(tmp_path)[1]  # beside the link, which stays
    assert file.is_symlink()
    for other in tmp_path.glob("surface-*.npz"):
        other.unlink()
    os.mkfifo(file)
    assert_computed(tmp_path)


def test_the_hash_of_arguments_is_of_all_of_them() -> None:
    ground = surface.Ground([2, 1], "relu", torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    things: list[Any] = [
        0,
        1,
        1.0,
        "1",
        True,
        "0",
        [],
        [1],
        [1, 1],
        [[1], 1],
        [1, [1]],
        {},
        {"a": 1},
        {"b": 1},
    ]
    things += [torch.zeros(2), torch.zeros(2, 1), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64)]
    things += [torch.tensor([0.0, -0.0]), torch.zeros(2, dtype=torch.int32), torch.zeros(3), ground]
    for widths, activation in (([2, 1], "tanh"), ([2, 2], "relu")):
        things.append(surface.Ground(widths, activation, ground.x, ground.y))
    assert len({surface._digest(thing) for thing in things}) == len(things)
    assert surface._digest("ab", "c") != surface._digest("a", "bc")
