"""Bad inputs of `ffn-export`: a line each, with its exit status, and nothing changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ffn_bench.export.command
from bad_inputs import check_bad, nothing, odd_runs, table
from ffn_bench.run_folder.files import MANIFEST

__all__ = ["odd_runs"]

BAD_EXPORTS: dict[str, tuple[Callable[[Path], object], list[str], int, str]] = {
    "no run": (nothing, ["run=null", "to=m.py"], 2, "run: has no value"),
    "no such run": (nothing, ["run=nowhere", "to=m.py"], 4, "nowhere: does not exist"),
    "a sweep": (nothing, ["run=SWEEP", "to=m.py"], 4, "contains 2 runs; name one of them, such as"),
    "a run that diverged": (nothing, ["run=DIVERGED", "to=m.py", "at=last"], 4, "has no checkpoint"),
    "a run that diverged at once": (
        nothing,
        ["run=DIVERGED", "to=m.py"],
        4,
        "diverged, and its best weights are the initial",
    ),
    "a run without a best epoch": (nothing, ["run=LAST", "to=m.py"], 4, "keep=last"),
    "a damaged checkpoint": (
        nothing,
        ["run=DAMAGED", "to=m.py", "at=last"],
        4,
        "every checkpoint is damaged",
    ),
    "an activation that is none": (nothing, ["run=UNKNOWN", "to=m.py"], 4, "activation: 'rleu' is not known"),
    "a configuration that was edited": (
        nothing,
        ["run=EDITED", "to=m.py"],
        4,
        "its configuration was changed",
    ),
    "two runs": (nothing, ["run=a,b", "to=m.py"], 2, "run: names 2 runs, and one is meant"),
    "no file": (nothing, [], 2, "to: has no value"),
    "an empty name": (nothing, ["to=' '"], 2, "to: is empty"),
    "no suffix": (nothing, ["to=model"], 2, "to: 'model' has no suffix"),
    "an unknown suffix": (
        nothing,
        ["to=m.onxx"],
        2,
        "ends in '.onxx', which is no known form (did you mean '.onnx'?)",
    ),
    "a suffix in capitals": (nothing, ["to=m.PT"], 2, "(did you mean '.pt'?)"),
    **{
        f"a module that {kind}": (
            nothing,
            [f"to=f/{name}.py"],
            2,
            f"to: '{name}' is {text}; use another name",
        )
        for kind, name, text in (
            ("it imports", "csv", "a module that it would hide"),
            ("others import", "numpy", "a module that it would hide"),
            ("is Python's", "random", "a module that it would hide"),
            ("cannot be imported", "class", "a keyword of Python"),
        )
    },
    "an unknown at": (nothing, ["to=m.py", "at=beste"], 2, "at: 'beste' is not known"),
    "an epoch beyond the end": (nothing, ["to=m.py", "at=epoch:7"], 4, "keeps no weights of epoch 7"),
    "an unknown key": (nothing, ["too=m.py"], 2, "too: no such key (did you mean 'to'?)"),
    "a person's file": (
        table("m.py", "mine"),
        ["to=m.py"],
        4,
        "m.py: exists, and was not written by this command",
    ),
    "a person's card": (table("m.card.md", "mine"), ["to=m.pt"], 4, "m.card.md: exists, and was not written"),
    "a folder": (lambda p: (p / "m.onnx").mkdir(), ["to=m.onnx"], 4, "m.onnx: is a folder"),
    "a link": (lambda p: (p / "m.onnx").symlink_to("x"), ["to=m.onnx"], 4, "m.onnx: is a link"),
    "a pipe": (lambda p: os.mkfifo(p / "m.onnx"), ["to=m.onnx"], 4, "m.onnx: is not a file"),
    "below a file": (table("f", "mine"), ["to=f/m.onnx"], 4, "is a file, not a folder"),
    "a folder that cannot be written": (nothing, ["to=/proc/m.onnx"], 4, "/proc: cannot be written to"),
    "a long name": (nothing, [f"to={'n' * 300}.py"], 4, "is too long"),
    "another manifest": (table(MANIFEST, "mine"), ["to=m.py"], 4, "is not a manifest of ffn-bench"),
    "a sweep over nothing": (nothing, ["-m", "to=m.py"], 2, "-m: there is nothing to sweep"),
    "two files": (nothing, ["to=[a.py,b.py]"], 2, "to: ['a.py', 'b.py'] is not text or null"),
}


@pytest.mark.parametrize("case", BAD_EXPORTS)
def test_a_bad_input_of_an_export_is_one_line(
    case: str,
    odd_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare, arguments, status, text = BAD_EXPORTS[case]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    main = ffn_bench.export.command.main
    check_bad(main, "ffn-export", odd_runs, tmp_path, arguments, status, text, monkeypatch, capsys)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_what_to_install_for_onnx(
    package: str,
    odd_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    main, text = (
        ffn_bench.export.command.main,
        f"a file .onnx needs {package}, not installed here; pip install",
    )
    check_bad(main, "ffn-export", odd_runs, tmp_path, ["to=m.onnx"], 5, text, monkeypatch, capsys)
