"""Tables with text, blanks and weights that cannot be trained on: one line each, and nothing is created."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Command, files_below
from data.test_text_tables import texts
from ffn_bench import api
from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data import datasets, files
from ffn_bench.data.preview import preview
from ffn_bench.errors import DATA, UserError
from passengers import write_passengers

ROWS = [f"{k},{'red' if k % 3 else 'blue'},{'x' if k % 2 else 'y'}" for k in range(40)]
GOOD = "n,s,label\n" + "\n".join(ROWS) + "\n"
TO = ["data=csv", "data.target=label", "epochs=1"]
IMPUTE = "data.missing=impute"
LONE_TEXT = GOOD.replace("\n7,", "\nseven,")
BLANK = GOOD.replace("\n7,", "\n,")


def frame(**columns: Any) -> pl.DataFrame:
    start = {"n": list(range(40)), "label": ["x", "y"] * 20}
    return pl.DataFrame({**start, **columns})


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    frame(**columns).write_parquet(out)
    return out.getvalue()


def arrow(**columns: Any) -> bytes:
    out = io.BytesIO()
    frame(**columns).write_ipc(out)
    return out.getvalue()


DATES = [datetime.date(2024, 1, 1 + k % 28) for k in range(40)]
Bad = tuple[str, str | bytes, list[str], int, list[str]]
"""The file's name, its content, keys, the exit status, words of the message."""

BAD: dict[str, Bad] = {
    "a text among numbers": (
        "t.csv",
        LONE_TEXT,
        [],
        3,
        ["line 9", "'n'", "'seven'", "data.drop=[n]", "data.categories=[n]"],
    ),
    "a text among numbers, blanks allowed": (
        "t.csv",
        LONE_TEXT,
        [IMPUTE],
        3,
        ["line 9", "'seven'", "blank it"],
    ),
    "a blank number": ("t.csv", BLANK, [], 3, ["line 9", "'n'", "blank cell", "data.missing=impute"]),
    "a word for a blank": ("t.csv", GOOD.replace("\n7,", "\nNA,"), [], 3, ["line 9", "'NA' is not a number"]),
    "NaN is a blank": (
        "t.csv",
        GOOD.replace("\n7,", "\nNaN,"),
        [],
        3,
        ["line 9", "not a finite number", "impute"],
    ),
    "a blank text": (
        "t.csv",
        GOOD.replace("7,red", "7,"),
        [],
        3,
        ["line 9", "'s'", "blank cell", "data.missing"],
    ),
    "infinity beside blanks": (
        "t.csv",
        GOOD.replace("\n7,", "\ninf,"),
        [IMPUTE],
        3,
        ["line 9", "inf is not a finite"],
    ),
    "too large beside blanks": (
        "t.csv",
        GOOD.replace("\n7,", "\n1e999,"),
        [IMPUTE],
        3,
        ["line 9", "not a finite"],
    ),
    "a blank label": (
        "t.csv",
        GOOD.replace("7,red,x", "7,red,"),
        [IMPUTE],
        3,
        ["line 9", "blank label", "drop_rows"],
    ),
    "a column of ids": (
        "t.csv",
        GOOD.replace(",red,", ",{},").replace(",blue,", ",{},").format(*map("u{}".format, range(40))),
        [],
        3,
        ["'s'", "40 different texts", "data.drop=[s]"],
    ),
    "decimal commas": (
        "t.csv",
        "a;label\n" + "".join(f"{k % 7},5;{'xy'[k % 2]}\n" for k in range(40)),
        [],
        3,
        ["'a'", "comma", "0,5"],
    ),
    "a column that is blank": (
        "t.csv",
        GOOD.replace("n,s", "e,n,s").replace("\n", "\n,")[:-1].replace(",e", "e", 1),
        [IMPUTE],
        3,
        ["blank in every training row", "data.drop"],
    ),
    "every row has a blank": (
        "t.csv",
        "n,s,label\n" + ",red,x\n1,,y\n" * 20,
        ["data.missing=drop_rows"],
        3,
        ["every row"],
    ),
    "one class is left": (
        "t.csv",
        "n,s,label\n" + "1,a,x\n" * 20 + ",a,y\n" * 20,
        ["data.missing=drop_rows"],
        3,
        ["one class"],
    ),
    "no column is left": ("t.csv", GOOD, ["data.drop=[n,s]"], 3, ["no column left"]),
    "an unknown column to drop": ("t.csv", GOOD, ["data.drop=[m]"], 3, ["data.drop", "'m'", "n, s, label"]),
    "an unknown column of categories": (
        "t.csv",
        GOOD,
        ["data.categories=[S]"],
        3,
        ["data.categories", "did you mean 's'"],
    ),
    "an unknown weight": ("t.csv", GOOD, ["data.weight=w"], 3, ["data.weight", "'w'"]),
    "a dropped target": ("t.csv", GOOD, ["data.drop=[label]"], 2, ["data.drop", "'label'", "data.target"]),
    "a weight that is the target": ("t.csv", GOOD, ["data.weight=label"], 2, ["data.weight", "data.target"]),
    "a column dropped twice": ("t.csv", GOOD, ["data.drop=[s,s]"], 2, ["data.drop", "twice"]),
    "an empty name": ("t.csv", GOOD, ["data.drop=['']"], 2, ["data.drop", "empty"]),
    "a text for a list": ("t.csv", GOOD, ["data.drop=s"], 2, ["data.drop", "list"]),
    "an unknown way with blanks": ("t.csv", GOOD, ["data.missing=imputed"], 2, ["data.missing", "'impute'"]),
    "two targets": ("t.csv", GOOD, ["data.target=[label,s]"], 2, ["data.target", "data.task=regression"]),
    "no target": ("t.csv", GOOD, ["data.target=[]"], 2, ["data.target", "empty"]),
    "a negative weight": (
        "t.csv",
        GOOD.replace("\n7,", "\n-7,"),
        ["data.weight=n"],
        3,
        ["'n'", "-7", "0 or more"],
    ),
    "weights of 0": (
        "t.csv",
        "w,s,label\n" + "0,a,x\n0,b,y\n" * 20,
        ["data.weight=w"],
        3,
        ["'w'", "all weights are 0"],
    ),
    "weights that no sum holds": (
        "t.csv",
        "w,s,label\n" + "1e308,a,x\n1e308,b,y\n" * 20,
        ["data.weight=w"],
        3,
        ["'w'", "too large to be added up"],
    ),
    "one weight far above the others": (
        "t.csv",
        "w,s,label\n1e300,a,x\n" + "1e-300,a,x\n1e-300,b,y\n" * 20,
        ["data.weight=w", "data.split_seed=0", "data.val_fraction=0.5"],
        3,
        ["data.weight", "too far above"],
    ),
    "a blank weight": ("t.csv", BLANK, ["data.weight=n", IMPUTE], 3, ["line 9", "'n'", "blank cell"]),
    "a text as weight": ("t.csv", GOOD, ["data.weight=s"], 3, ["line 2", "'s'", "not a number"]),
    "an infinite weight": (
        "t.csv",
        GOOD.replace("\n7,", "\ninf,"),
        ["data.weight=n"],
        3,
        ["line 9", "finite"],
    ),
    "a line for a spreadsheet": ("t.csv", "sep=,\n" + GOOD, [], 3, ["line 1", "delete this line"]),
    "another line for a spreadsheet": ("t.csv", "sep=;\n" + GOOD, [], 3, ["line 1", "delete this line"]),
    "a word for a blank among truth values": (
        "t.csv",
        GOOD.replace("red", "true").replace("blue", "NA"),
        [],
        3,
        ["'NA' is neither true nor false", "data.missing=impute"],
    ),
    "every row has a blank in one column": (
        "t.csv",
        "n,s,label\n" + ",red,x\n,red,y\n" * 20,
        ["data.missing=drop_rows"],
        3,
        ["data.drop=[n]"],
    ),
    "two delimiters": (
        "t.csv",
        "a,b;label\n" + "1,2;x\n3,4;y\n" * 20,
        [],
        3,
        ["line 1", "',' or ';'", "data.delimiter="],
    ),
    "another delimiter than given": (
        "t.csv",
        GOOD.replace(",", ";"),
        ["data.delimiter=','"],
        3,
        ["one column", "\"';'\""],
    ),
    "gzip that is none": ("t.csv.gz", GOOD, [], 3, ["damaged", "not packed"]),
    "gzip that is cut": ("t.csv.gz", gzip.compress(GOOD.encode())[:-9], [], 3, ["damaged"]),
    "bzip2 that is cut": ("t.csv.bz2", bz2.compress(GOOD.encode())[:-9], [], 3, ["damaged"]),
    "xz that is damaged": ("t.csv.xz", lzma.compress(GOOD.encode())[:-20] + b"\0" * 20, [], 3, ["damaged"]),
    "nothing, packed": ("t.csv.gz", gzip.compress(b""), [], 3, ["is empty"]),
    "packed by another name": ("t.csv", gzip.compress(GOOD.encode()), [], 3, ["gzip", ".csv.gz"]),
    "packed text that is not UTF-8": ("t.csv.xz", lzma.compress(GOOD.encode("utf-16")), [], 3, ["t.csv.xz"]),
    "a workbook": ("t.xlsx", b"PK\x03\x04" + b"\0" * 100, [], 3, ["workbook", "CSV"]),
    "Parquet that is none": ("t.parquet", GOOD, [], 3, ["cannot be read as Parquet"]),
    "Parquet that is cut": ("t.parquet", parquet()[:-20], [], 3, ["cannot be read as Parquet"]),
    "Parquet by another name": ("t.csv", parquet(), [], 3, ["Parquet", "name it"]),
    "Arrow that is none": ("t.feather", GOOD, [], 3, ["cannot be read as Arrow"]),
    "Parquet with dates": ("t.parquet", parquet(day=DATES), [], 3, ["'day'", "dates", "data.drop=[day]"]),
    "Parquet with times": (
        "t.parquet",
        parquet(t=[datetime.datetime(2024, 1, 1)] * 40),
        [],
        3,
        ["'t'", "dates"],
    ),
    "Parquet with lists": (
        "t.parquet",
        parquet(a=[[1, 2]] * 40),
        [],
        3,
        ["'a'", "List(Int64)", "data.drop=[a]"],
    ),
    "Parquet with bytes": (
        "t.parquet",
        parquet(a=[b"ab"] * 40),
        [],
        3,
        ["'a'", "the type Binary", "data.drop=[a]"],
    ),
    "Parquet with a blank": (
        "t.parquet",
        parquet(a=[1.0, None] * 20),
        [],
        3,
        ["row 1", "'a'", "blank cell", "impute"],
    ),
    "Arrow with a blank text": ("t.arrow", arrow(a=["u", None] * 20), [], 3, ["row 1", "'a'", "blank cell"]),
    "Parquet with NaN": ("t.parquet", parquet(a=[1.0, float("nan")] * 20), [], 3, ["row 1", "'a'", "nan"]),
    "Parquet with infinity": (
        "t.parquet",
        parquet(a=[1.0, float("inf")] * 20),
        [IMPUTE],
        3,
        ["row 1", "inf"],
    ),
    "Parquet without rows": ("t.parquet", parquet(n=[], label=[]), [], 3, ["no rows"]),
    "Parquet without the target": (
        "t.parquet",
        parquet(),
        ["data.target=lable"],
        3,
        ["data.target", "'label'"],
    ),
    "a blank label in Parquet": (
        "t.parquet",
        parquet(label=[None] + ["x", "y", "x"] * 13),
        [IMPUTE],
        3,
        ["row 0", "blank label", "data.missing=drop_rows"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_line(ffn: Command, tmp_path: Path, case: str) -> None:
    name, content, keys, status, words = BAD[case]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = [
        key for key in TO if not (key.startswith("data.target") and any("data.target" in k for k in keys))
    ]
    result = ffn(*given, f"data.path={name}", *keys)
    assert result.code == status, result
    assert result.err.startswith("ffn-train: error: ") and result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err
    assert files_below(tmp_path) == [file]


TESTS: dict[str, tuple[str, list[str], list[str]]] = {
    "missing": ("", [], ["no such file", "data.test_path"]),
    "lacks a column": ("n,label\n1,x\n2,y\n", [], ["data.test_path", "'s'"]),
    "lacks the target": ("n,s\n1,red\n", [], ["data.test_path", "'label'"]),
    "another label": ("n,s,label\n1,red,x\n2,red,z\n", [], ["test.csv", "'z'"]),
    "text in a column of numbers": ("n,s,label\none,red,x\n", [], ["test.csv, line 2", "'one'"]),
    "a blank": ("n,s,label\n1,red,x\n2,,y\n", [], ["test.csv, line 3", "'s'", "blank cell"]),
    "no rows": ("n,s,label\n", [], ["no rows"]),
    "one class": ("n,s,label\n1,red,x\n", [], ["test.csv: has no row of class 'y'"]),
    "a short row": ("n,s,label\n1,red\n", [], ["line 2", "2 cells"]),
}


@pytest.mark.parametrize("case", TESTS)
def test_a_bad_test_file_is_one_line(ffn: Command, tmp_path: Path, case: str) -> None:
    content, keys, words = TESTS[case]
    (tmp_path / "t.csv").write_text(GOOD)
    if content:
        (tmp_path / "test.csv").write_text(content)
    before = files_below(tmp_path)
    result = ffn(*TO, "data.path=t.csv", "data.test_path=test.csv", *keys)
    assert result.code == 3, result
    assert result.err.startswith("ffn-train: error: ") and result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err
    assert files_below(tmp_path) == before


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(texts(), st.binary(max_size=200)),
    suffix=st.sampled_from([".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".parquet", ".feather"]),
    missing=st.sampled_from(["error", "impute", "drop_rows"]),
    packed=st.booleans(),
    cut=st.integers(0, 30),
    weight=st.sampled_from([None, "c1"]),
)
def test_any_file_is_data_or_one_line(
    tmp_path: Path, content: bytes, suffix: str, missing: str, packed: bool, cut: int, weight: str | None
) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    if packed and Path(suffix).suffix in pack:
        content = pack[Path(suffix).suffix](content)
        content = content[: len(content) - cut if cut < 5 else len(content)]
    file = tmp_path / f"t{suffix}"
    file.write_bytes(content)
    config = CsvConfig(name="csv", path=str(file), target="y", missing=missing, weight=weight)
    for read in (datasets.load, preview):
        try:
            read(config)
        except UserError as e:
            assert e.status == DATA and "\n" not in str(e)


NO_CURES = {
    "infinity": (GOOD.replace("\n7,", "\ninf,"), [], ["impute", "categories"]),
    "a blank weight": (BLANK, ["data.weight=n"], ["impute", "drop=", "categories"]),
    "a word as weight": (GOOD.replace("\n7,", "\nNA,"), ["data.weight=n"], ["impute", "drop=", "categories"]),
    "a text as target": (GOOD, ["data.target=s", "data.task=regression"], ["impute", "drop=", "categories"]),
}


@pytest.mark.parametrize("case", NO_CURES)
def test_no_cure_is_told_that_is_none(ffn: Command, tmp_path: Path, case: str) -> None:
    content, keys, words = NO_CURES[case]
    (tmp_path / "t.csv").write_text(content)
    given = [key for key in TO if not any("data.target" in k for k in keys) or "data.target" not in key]
    result = ffn(*given, "data.path=t.csv", *keys)
    assert result.code == 3
    for word in words:
        assert word not in result.err


def test_unpacking_stops_at_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"1," * 2**22))
    memory = type("Memory", (), {"available": 2**20})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr(files, "CHUNK", 2**18)
    with pytest.raises(UserError, match="free memory when unpacked"):
        files.text_file(path)


def test_a_large_frame_in_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.parquet"
    pl.DataFrame({"n": np.zeros(10**6), "label": ["x", "y"] * (5 * 10**5)}).write_parquet(path)
    memory = type("Memory", (), {"available": 2**20})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(UserError, match="1,000,000 rows, which need"):
        datasets.load(CsvConfig(name="csv", path=str(path), target="label"))


def test_too_many_inputs_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ffn_bench.data import tables
    from ffn_bench.data.preparation import prepare

    path = write_passengers(tmp_path / "t.csv")
    config = CsvConfig(name="csv", path=str(path), target="survived", missing="impute", drop=["id", "name"])
    raw = tables.load_csv(config)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(UserError, match=r"inputs, one a category, need .* data.drop=\["):
        prepare(raw, config)


# --- frames of Python -----------------------------------------------------------------------------------

FRAMES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "text beside numbers": (
        {"a": pl.Series([1, 2, "x", 4] * 10, dtype=pl.Object)},
        {},
        ["row 2", "'a'", "'x' is not a number"],
    ),
    "a null": ({"a": [None, 1] * 20}, {}, ["row 0", "'a'", "blank cell"]),
    "a date": ({"a": DATES}, {}, ["'a'", "dates"]),
    "an unknown column": ({}, {"data.drop": ["b"]}, ["data.drop", "'b'"]),
    "no list": ({}, {"data.drop": "n"}, ["data.drop", "list"]),
    "no such way": ({}, {"data.missing": "yes"}, ["data.missing", "'yes'"]),
    "ids": ({"a": [f"u{k}" for k in range(40)]}, {}, ["'a'", "40 different texts"]),
    "negative weights": ({"w": [-1.0] * 40}, {"data.weight": "w"}, ["'w'", "-1"]),
    "a preview": ({}, {"data.preview": True}, ["data.preview", "ffn-train"]),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    columns, keys, words = FRAMES[case]
    with pytest.raises(UserError) as e:
        api.fit(frame(**columns), target="label", progress=False, epochs=1, **keys)
    for word in words:
        assert word in str(e.value)
    assert files_below(tmp_path) == []


def test_columns_of_plain_arrays_have_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="columns of a frame"):
        api.fit((np.zeros((4, 2)), [0, 1, 0, 1]), progress=False, **{"data.missing": "impute"})
