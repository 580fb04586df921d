"""Damaged and hostile run folders, by tables: what is damaged, how, and what each command must say of it.

The statuses are those that the damage demands: what a command needs and cannot trust is 4 (in a sweep that
run's failure, 1), what it does not need is 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffn_bench.run_folder import checkpoints
from ffn_bench.run_folder.files import Folder

OUTSIDE = "outside"
"""A folder beside the outputs, with things of a person's: nothing in it may change."""


def make_outside(folder: Path) -> None:
    """A person's things."""
    (folder / "papers").mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work\n" * 20)
    (folder / "papers" / "summary.json").write_text('{"mine": true}')
    (folder / "metrics.jsonl").write_text("[1, 2]\n")


def bytes_below(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its content; links as what they say."""
    contents: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            contents[str(path.relative_to(folder))] = os.fsencode(path.readlink())
        elif path.is_file():
            with path.open("rb") as file:
                contents[str(path.relative_to(folder))] = file.read(2**20) + b"%d" % path.stat().st_size
        else:
            contents[str(path.relative_to(folder))] = None
    return contents


# --- how a file is damaged ------------------------------------------------------------------------------


def _replaced(content: bytes) -> Callable[[Path, Path], None]:
    def act(path: Path, outside: Path) -> None:
        _remove(path)
        path.write_bytes(content)

    return act


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _delete(path: Path, outside: Path) -> None:
    _remove(path)


def _truncate(path: Path, outside: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path, outside: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 0x55]) + content[1:])


def _junk_behind(path: Path, outside: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"step": 1, "epo\xff\n[red]junk\x1b[31m\n')


def _folder(path: Path, outside: Path) -> None:
    _remove(path)
    path.mkdir()
    (path / "kept.txt").write_text("a person's\n")


def _link(target: str) -> Callable[[Path, Path], None]:
    def act(path: Path, outside: Path) -> None:
        _remove(path)
        path.symlink_to(outside / target)

    return act


def _link_inside(path: Path, outside: Path) -> None:
    """To another file of the same folder."""
    _remove(path)
    path.symlink_to("run.json" if path.name != "run.json" else "metrics.jsonl")


def _hard_link(path: Path, outside: Path) -> None:
    """The same content, under a second name outside."""
    shutil.copyfile(path, outside / "second")
    path.unlink()
    os.link(outside / "second", path)


def _fifo(path: Path, outside: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _huge(path: Path, outside: Path) -> None:
    _remove(path)
    with path.open("wb") as file:
        file.truncate(2**43)


JSON_OF_OTHER_KINDS = {
    "a list": b"[1, 2]",
    "a number": b"17",
    "null": b"null",
    "text": b'"finished"',
    "an empty object": b"{}",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "not a number": b'{"format": NaN, "status": NaN, "step": NaN}',
    "a huge number": b'{"format": 1' + b"0" * 5000 + b'1, "status": 1e999, "step": 1e999}',
    "a lone surrogate": b'{"status": "\\ud800", "config": {"\\udfff": 1}, "format": 1}',
    "lists for values": b'{"format": [], "config": [], "status": [], "final": [], "best": 5, "step": []}',
    "objects for values": b'{"format": {}, "config": {"lr": {}}, "status": {}, "final": 1, "step": {}}',
    "wrong kinds": b'{"status": "finished", "final": {"accuracy/val": "x"}, "best": [], "steps": "9"}',
    "markup": b'{"status": "[red]\\u001b[31m", "reason": "${oc.env:HOME}"}',
    "not UTF-8": b'{"status": "\xff\xfe"}',
    "zeros": bytes(400),
    "a call": b'{"_target_": "os.system", "command": "touch canary"}',
    "a pickle": b"cos\nsystem\n(S'touch canary'\ntR.",
}

DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "deleted": _delete,
    "empty": _replaced(b""),
    "truncated": _truncate,
    "flipped": _flip,
    "junk behind": _junk_behind,
    "a folder": _folder,
    "a link to a file": _link("thesis.txt"),
    "a link to a folder": _link("papers"),
    "a link to nothing": _link("nothing/there"),
    "a link inside": _link_inside,
    "a hard link": _hard_link,
    "a pipe": _fifo,
    "huge": _huge,
    **{name: _replaced(content) for name, content in JSON_OF_OTHER_KINDS.items()},
}


# --- checkpoints whose checksum is right and whose content is wrong -------------------------------------


def rewrite_checkpoints(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the states of all checkpoints, and give the files the checksums and places they then have."""
    from safetensors.numpy import save as to_bytes

    for file in sorted((folder / "checkpoint").iterdir()):
        state = checkpoints.load(Folder(folder), f"checkpoint/{file.name}")
        change(state)
        arrays: dict[str, Any] = {}
        header = {"format": "1", "state": json.dumps(checkpoints.pack(state, arrays, ""))}
        content = to_bytes({k: np.asarray(a, order="C") for k, a in arrays.items()}, metadata=header)
        step = state["step"] if isinstance(state.get("step"), int) and 0 <= state["step"] < 10**10 else 7
        name = f"step-{step:010d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        file.unlink()
        (folder / "checkpoint" / name).write_bytes(content)
        entry = {"file": f"checkpoint/{name}", "size": len(content)}
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        with (folder / ".ffn-bench.jsonl").open("a") as manifest:
            manifest.write(json.dumps(entry) + "\n")


def _first_array(tree: Any, change: Callable[[Any], Any]) -> bool:
    """Replace the first moment, or the like, of an optimizer's state."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, np.ndarray) and value.size > 1:
            tree[key] = change(value)
            return True
        if _first_array(value, change):
            return True
    return False


def _best_array(state: dict[str, Any], change: Callable[[Any], Any]) -> None:
    """Replace the first weights of the best epoch, which the checkpoint has where that epoch is not now."""
    best = {name: array.copy() for name, array in (state["best"]["network"] or state["network"]).items()}
    best["weights.0"] = change(best["weights.0"])
    state["best"]["network"] = best


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "step is text": lambda s: s.update(step="x"),
    "step is negative": lambda s: s.update(step=-5),
    "step beyond the end": lambda s: s.update(step=10**12),
    "step is a fraction": lambda s: s.update(step=3.5),
    "step is true": lambda s: s.update(step=True),
    "no step": lambda s: s.pop("step"),
    "another step": lambda s: s.update(step=s["step"] + 1),
    "another epoch": lambda s: s.update(epoch=s["epoch"] + 1),
    "epoch is text": lambda s: s.update(epoch="1"),
    "time is not a number": lambda s: s.update(train_seconds=float("nan")),
    "time is text": lambda s: s.update(train_seconds="long"),
    "time runs backwards": lambda s: s.update(train_seconds=-1.0),
    "another engine": lambda s: s.update(engine="quantum"),
    "no engine": lambda s: s.pop("engine"),
    "no network": lambda s: s.pop("network"),
    "network is a list": lambda s: s.update(network=[]),
    "a weight of another shape": lambda s: _first_array(s["network"], lambda a: a.reshape(-1)[:-1]),
    "a weight of another dtype": lambda s: _first_array(s["network"], lambda a: a.astype(np.float64)),
    "a weight of whole numbers": lambda s: _first_array(s["network"], lambda a: a.astype(np.int64)),
    "a weight too many": lambda s: s["network"].update({"weights.9": s["network"]["weights.0"]}),
    "no optimizer": lambda s: s.pop("optimizer"),
    "optimizer is text": lambda s: s.update(optimizer="adam"),
    "a moment of another shape": lambda s: _first_array(s["optimizer"], lambda a: a.reshape(-1)[:1]),
    "a moment of another dtype": lambda s: _first_array(s["optimizer"], lambda a: a.astype(np.float64)),
    "a moment that is a number": lambda s: _first_array(s["optimizer"], lambda a: 0.0),
    "best is text": lambda s: s.update(best="epoch 2"),
    "best is a list": lambda s: s.update(best=[2, 10]),
    "best lacks its value": lambda s: s["best"].pop("value"),
    "best by another tag": lambda s: s["best"].update(tag="loss/val"),
    "a best epoch to come": lambda s: s["best"].update(epoch=s["epoch"] + 1),
    "a best epoch that is text": lambda s: s["best"].update(epoch="2"),
    "a best step within an epoch": lambda s: s["best"].update(step=s["best"]["step"] + 1),
    "a best value that is text": lambda s: s["best"].update(value="high"),
    "a best value that is not finite": lambda s: s["best"].update(value=float("nan")),
    "an improvement to come": lambda s: s["best"].update(improved=s["epoch"] + 1),
    "best weights of another shape": lambda s: _best_array(s, lambda a: a.reshape(-1)[:-1]),
    "best weights of another dtype": lambda s: _best_array(s, lambda a: a.astype(np.float64)),
    "best weights that are text": lambda s: s["best"].update(network="the best"),
    "best weights without one": lambda s: _best_array(s, lambda a: None),
    "no window": lambda s: s.pop("window"),
    "window is text": lambda s: s.update(window="wide"),
    "something more": lambda s: s.update(more=1),
    "no files": lambda s: s.pop("files"),
    "files is a list": lambda s: s.update(files=["metrics.jsonl"]),
    "files outside": lambda s: s["files"].update({"../../../outside/thesis.txt": 4}),
    "files of a person": lambda s: s["files"].update({"kept.txt": {"size": 2, "sha256": "0" * 64}}),
    "an absolute file": lambda s: s["files"].update({"/etc/passwd": 0}),
    "a size that is negative": lambda s: s["files"].update({"metrics.jsonl": -1}),
    "a size that is text": lambda s: s["files"].update({"metrics.jsonl": {"size": "4"}}),
    "a size too large": lambda s: s["files"].update({"metrics.jsonl": 10**15}),
    "a hash of something else": lambda s: s["files"]["metrics.jsonl"].update(sha256="0" * 64),
}
"""Every one of these must be refused (in a sweep: that run's failure)."""


# --- what must come of it -------------------------------------------------------------------------------

RUN_STATES = ("finished", "killed", "interrupted")
FILES = (
    "run.json", "summary.json", "metrics.jsonl", "train.log", "events", "newest", "checkpoint",
    "best.safetensors", ".hydra", ".hydra/config.yaml", ".lock", ".ffn-bench.jsonl",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A run in some state, one of its files damaged in some way, and a command that meets it."""

    command: str
    state: str
    file: str
    damage: str

    @property
    def possible(self) -> bool:
        """Whether the damage can be done at all."""
        if self.file == "summary.json" and self.state == "killed":
            return self.damage not in ("deleted", "truncated", "flipped", "junk behind", "a hard link")
        if self.file in ("checkpoint", ".hydra"):
            kinds = (
                "deleted",
                "empty",
                "a link to a file",
                "a link to a folder",
                "a link to nothing",
                "a pipe",
            )
            return self.damage in kinds
        if self.file == ".lock":
            return self.damage not in ("truncated", "flipped")
        return True

    def act(self, folder: Path, outside: Path) -> None:
        """Do the damage."""
        names = {
            "events": lambda: next(folder.glob("events.*")),
            "newest": lambda: max((folder / "checkpoint").iterdir()),
        }
        path = names[self.file]() if self.file in names else folder / self.file
        if self.damage == "a hard link" and not path.exists():
            return  # runs of a sweep have no lock of their own
        if path.is_fifo() and self.damage != "deleted":
            return  # an earlier damage put it there, and opening it would wait for ever
        DAMAGES[self.damage](path, outside)

    def demanded(self) -> set[int]:
        """Exit statuses that the damage allows, of a command on this run alone."""
        return _DEMANDED[self.command](self)


def _train(case: Case) -> set[int]:
    kind, how, resumes = case.file, case.damage, case.state != "finished"
    if kind == "run.json":
        # Without it the other files are nobody's.
        return {0} if how == "a hard link" else {4}
    if kind == "summary.json":
        if how in ("deleted", "a hard link"):
            return {0}
        return {4}
    if kind == ".lock":
        # A run that has ended is shown before its lock is asked for.
        in_the_way = how.startswith("a link") or how in ("a folder", "a pipe", "a hard link")
        return {4} if in_the_way and resumes else {0}
    if not resumes:
        return {0}
    if kind == "metrics.jsonl":
        return {0} if how == "junk behind" else {4}
    if kind == "train.log":
        in_the_way = how.startswith("a link") or how in ("a folder", "a pipe", "a hard link")
        return {4} if in_the_way else {0}
    if kind == "events":
        # A person's curves are a view of metrics.jsonl: one that is gone is told, one that was changed is not
        # ours to cut.
        return {0} if how in ("deleted", "junk behind") else {4}
    if kind == "newest":
        return {0}  # the one before is used
    if kind == "checkpoint":
        return {0} if how == "deleted" else {4}
    if kind == "best.safetensors":
        return {0}  # it is written anew; one that is not ours makes room
    if kind == ".hydra":
        return {0} if how == "deleted" else {4}
    if kind == ".hydra/config.yaml":
        return {0}
    # The manifest. Without one, a folder is of an earlier release; one that is torn owns less.
    return {0} if how in ("deleted", "junk behind") else {0, 4} if how == "truncated" else {4}


def _landscape(case: Case) -> set[int]:
    if case.file == "checkpoint":
        return {4}
    if case.file in ("run.json", "summary.json", "metrics.jsonl"):
        harmless = ("a hard link",) if case.file == "run.json" else ("a hard link", "deleted")
        if case.file == "metrics.jsonl":
            # A line of other content at the end is one that is being written.
            return {0} if case.damage in harmless else {0, 4}
        return {0} if case.damage in harmless else {4}
    return {0}


def _landscape_best(case: Case) -> set[int]:
    """At the best epoch: its file is needed, too."""
    if case.file == "best.safetensors":
        return {0} if case.damage == "a hard link" else {4}
    return _landscape(case)


def _race(case: Case) -> set[int]:
    """As a landscape, which reads the same files, but for the checkpoint, which a race does not need."""
    return {0} if case.file == "checkpoint" else _landscape(case)


def _export(case: Case) -> set[int]:
    """As a prediction, but for the checkpoint: the weights of the best epoch are a file of their own."""
    return {0} if case.file == "checkpoint" else _landscape_best(case)


def _any(case: Case) -> set[int]:
    """A command that only looks shows what there is to see, and says what it cannot read."""
    return {0}


_DEMANDED: dict[str, Callable[[Case], set[int]]] = {
    "train": _train,
    "sweep": _train,
    "status": _any,
    "sweep status": _any,
    "compare": _any,
    "landscape": _landscape,
    "landscape best": _landscape_best,
    "race": _race,
    "predict": _landscape,
    "export": _export,
}


SWEEP_FILES = (".lock", "multirun.yaml", ".ffn-bench.jsonl")


def of_the_sweep(file: str, damage: str) -> set[int]:
    """Exit statuses that damage to a file of the sweep itself allows, when the sweep is resumed."""
    if file == "multirun.yaml":
        return {0}
    if file == ".lock":
        in_the_way = damage.startswith("a link") or damage in ("a folder", "a pipe", "a hard link")
        return {4} if in_the_way else {0}
    return {0} if damage in ("deleted", "junk behind", "empty") else {0, 4} if damage == "truncated" else {4}


def add_unrelated_files(folder: Path) -> None:
    """Things of a person's, and of nobody's, that no command may touch or take for its own."""
    (folder / "kept.txt").write_text("a person's\n")
    (folder / "events.out.tfevents.mine").write_text("a person's\n")
    (folder / "summary.json.tmp").write_text("a person's\n")
    (folder / "[red]\x1b[31m\n${oc.env:HOME}").write_text("odd\n")
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint" / "step-9999999999-junk.safetensors").write_text("a person's\n")
    (folder / "checkpoint" / f"step-99-{'0' * 64}.safetensors").write_text("a person's\n")
    (folder / "checkpoint" / "model.pt").write_text("a person's\n")
    odd = folder.parent / "[red]\x1b[31m <script>${oc.env:HOME}"
    if not odd.exists():
        shutil.copytree(folder, odd)  # a run under an odd name
