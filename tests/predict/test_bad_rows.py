"""Bad inputs of `ffn-predict`: a line each, with its exit status, and nothing changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ffn_bench.predict.command
from bad_inputs import check_bad, nothing, odd_runs, table

__all__ = ["odd_runs"]

GOOD = "x0,x1\n1,2\n3,4\n"
ROWS = "data.path=rows.csv"


def rows(content: str | bytes) -> Callable[[Path], object]:
    return table("rows.csv", content)


BAD: dict[str, tuple[Callable[[Path], object], list[str], int, str]] = {
    # what is there, arguments, exit status, what the line must say
    "no run": (nothing, ["run=null", ROWS], 2, "run: has no value"),
    "no such run": (nothing, ["run=nowhere", ROWS], 4, "nowhere: does not exist"),
    "a run that is a file": (rows(GOOD), ["run=rows.csv", ROWS], 4, "rows.csv: is a file"),
    "a run that is empty": (lambda p: (p / "e").mkdir(), ["run=e", ROWS], 4, "e: contains no run"),
    "a sweep": (rows(GOOD), ["run=SWEEP", ROWS], 4, "contains 2 runs; name one of them, such as"),
    "two runs": (rows(GOOD), ["run=a,b", ROWS], 2, "run: names 2 runs, and one is meant; write a command"),
    "a run that diverged": (rows(GOOD), ["run=DIVERGED", ROWS, "at=last"], 4, "has no checkpoint"),
    "a run that diverged at once": (
        rows(GOOD),
        ["run=DIVERGED", ROWS],
        4,
        "diverged, and its best weights are the initial",
    ),
    "a run without a best epoch": (rows(GOOD), ["run=LAST", ROWS], 4, "keep=last"),
    "a damaged checkpoint": (rows(GOOD), ["run=DAMAGED", ROWS, "at=last"], 4, "every checkpoint is damaged"),
    "an activation that is none": (
        rows(GOOD),
        ["run=UNKNOWN", ROWS],
        4,
        "unknown: model.activation: 'rleu' is not known (did you mean 'relu'?); name a run that",
    ),
    "a configuration that was edited": (
        rows(GOOD),
        ["run=EDITED", ROWS],
        4,
        "edited/run.json: its configuration was changed since the run began",
    ),
    "no rows to predict": (nothing, [], 2, "data.path: has no value; name a CSV file, or split=test"),
    "a file and a split": (rows(GOOD), [ROWS, "split=test"], 2, "split: and data.path are both given"),
    "an unknown split": (nothing, ["split=tset"], 2, "split: 'tset' is not known (did you mean 'test'?)"),
    "a split without rows": (
        nothing,
        ["run=LAST", "at=last", "split=val"],
        2,
        "no rows in its validation split",
    ),
    "an unknown at": (rows(GOOD), [ROWS, "at=bset"], 2, "at: 'bset' is not known (did you mean 'best'?)"),
    "an epoch beyond the end": (rows(GOOD), [ROWS, "at=epoch:99"], 4, "keeps no weights of epoch 99"),
    "an unknown key": (rows(GOOD), [ROWS, "spilt=test"], 2, "spilt: no such key (did you mean 'split'?)"),
    "an unknown key of data": (nothing, ["data.file=rows.csv"], 2, "data.file: no such key"),
    "a sweep over nothing": (rows(GOOD), ["-m", ROWS], 2, "-m: there is nothing to sweep"),
    "an empty path": (nothing, ["data.path=' '"], 2, "data.path: is empty"),
    "no such file": (nothing, ["data.path=none.csv"], 3, "none.csv: no such file"),
    "rows in a folder": (lambda p: (p / "f").mkdir(), ["data.path=f"], 3, "f: is a folder"),
    "rows in a pipe": (lambda p: os.mkfifo(p / "pipe"), ["data.path=pipe"], 3, "is not a regular file"),
    "an unknown user": (nothing, ["data.path=~nobody-here/x"], 3, "this user does not exist"),
    "an empty file": (rows(""), [ROWS], 3, "rows.csv: is empty"),
    "a header only": (rows("x0,x1\n"), [ROWS], 3, "rows.csv: has a header and no rows"),
    "blank lines only": (rows("\n\n"), [ROWS], 3, "rows.csv: has no header line"),
    "a column too few": (
        rows("x0,y\n1,2\n"),
        [ROWS],
        3,
        "lacks 1 of the 2 columns that the run was trained on: 'x1'",
    ),
    "other columns": (
        rows("a,b,c\n1,2,3\n"),
        [ROWS],
        3,
        "lacks 2 of the 2 columns that the run was trained on: 'x0', 'x1'; its columns: a, b, c",
    ),
    "a mistyped column": (rows("x0,x_1\n1,2\n"), [ROWS], 3, "'x1' (did you mean 'x_1'?)"),
    "another delimiter": (
        rows("x0;x1\n1;2\n"),
        [ROWS, "data.delimiter=','"],
        3,
        "try data.delimiter=\"';'\"",
    ),
    "a delimiter of two": (
        rows(GOOD),
        [ROWS, "data.delimiter=ab"],
        2,
        "data.delimiter: 'ab' is not one character",
    ),
    "a quote as delimiter": (rows(GOOD), [ROWS, "data.delimiter='\"'"], 2, "is not one character; use , or"),
    "no such label": (
        rows(GOOD),
        [ROWS, "data.target=truth"],
        3,
        "data.target: rows.csv has no column 'truth'",
    ),
    "a label that is a feature": (
        rows(GOOD),
        [ROWS, "data.target=x1"],
        3,
        "data.target: 'x1' is a feature that the run was trained on; name the column of labels",
    ),
    "duplicate columns": (rows("x0,x1,x0\n1,2,3\n"), [ROWS], 3, "line 1: column 'x0' is duplicated"),
    "a column without a name": (rows("x0,x1,\n1,2,3\n"), [ROWS], 3, "line 1: a column has no name"),
    "text": (rows("x0,x1\n1,2\n3,four\n"), [ROWS], 3, "line 3, column 'x1': 'four' is not a number"),
    "a blank cell": (rows("x0,x1\n1,2\n,4\n"), [ROWS], 3, "line 3, column 'x0': blank cell"),
    "no number": (rows("x0,x1\n1,2\n3,nan\n"), [ROWS], 3, "line 3, column 'x1': nan is not a finite number"),
    "a number too large": (
        rows("x0,x1\n1e300,2\n"),
        [ROWS],
        3,
        "the values of row 1 are too large for this network",
    ),
    "a short row": (rows("x0,x1\n1\n3,4\n"), [ROWS], 3, "line 2: has 1 cell where the header has 2"),
    "a long row": (rows("x0,x1\n1,2\n3,4,5\n"), [ROWS], 3, "line 3: has 3 cells where the header has 2"),
    "an open quote": (rows('x0,x1\n1,"2\n3,4\n'), [ROWS], 3, "a quote is opened and never closed"),
    "a NUL": (rows("x0,x1\n1,2\n3,\0\n"), [ROWS], 3, "line 3: contains a NUL byte"),
    "not UTF-8": (rows(b"x0,x1,t\n1,2,\xe9\n"), [ROWS], 3, "rows.csv: is not UTF-8 (byte 0xe9)"),
    "no standard input": (nothing, ["data.path=-"], 3, "standard input: is empty"),
    "out that is a folder": (rows(GOOD), [ROWS, "out=."], 4, ".: is a folder"),
    "out with another folder": (
        lambda p: (p / "f").mkdir(),
        ["split=test", "out=f"],
        4,
        "f: is a folder; name another with out=",
    ),
    "out that is empty": (rows(GOOD), [ROWS, "out=''"], 2, "out: is empty"),
    "out that is the rows": (
        rows(GOOD),
        [ROWS, "out=rows.csv"],
        4,
        "rows.csv: exists, and was not written by this command",
    ),
    "out that is a link": (lambda p: (p / "l").symlink_to("x"), ["split=test", "out=l"], 4, "l: is a link"),
    "out below a file": (rows(GOOD), [ROWS, "out=rows.csv/p"], 4, "is a file, not a folder"),
    "out below nothing that can be": (
        rows(GOOD),
        [ROWS, "out=/proc/x/p.csv"],
        4,
        "/proc: cannot be written to",
    ),
    "out with a long name": (rows(GOOD), [ROWS, f"out={'n' * 300}"], 4, "is too long"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_input_is_one_line(
    case: str,
    odd_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare, arguments, status, text = BAD[case]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    main = ffn_bench.predict.command.main
    check_bad(main, "ffn-predict", odd_runs, tmp_path, arguments, status, text, monkeypatch, capsys)
