"""The same table means the same in every format and wherever it is read: for training, as a test file, for
prediction."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ffn_bench.configuration.schema import ArraysConfig, CsvConfig
from ffn_bench.data import arrays, datasets, frames, tables
from ffn_bench.data.columns import UNSEEN, Kind, Layout, coder
from ffn_bench.data.preview import preview
from ffn_bench.data.rows import Raw
from ffn_bench.errors import UserError

Read = Callable[[pl.DataFrame, Path, dict[str, Any]], Raw]


def _file(suffix: str, polars_bytes: float = math.inf) -> Read:
    def read(frame: pl.DataFrame, folder: Path, keys: dict[str, Any]) -> Raw:
        path = folder / f"t{suffix}"
        write = {".csv": frame.write_csv, ".parquet": frame.write_parquet, ".arrow": frame.write_ipc}
        write[suffix](path)  # type: ignore[operator]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "POLARS_BYTES", polars_bytes)
            return tables.load_csv(CsvConfig(name="csv", path=str(path), **{"target": "y", **keys}))

    return read


def _frame(pandas: bool) -> Read:
    def read(frame: pl.DataFrame, folder: Path, keys: dict[str, Any]) -> Raw:
        import pandas as pd

        given: Any = pd.DataFrame(frame.to_dict(as_series=False)) if pandas else frame
        rest = {key: value for key, value in keys.items() if key != "target"}
        return arrays.raw_of(given, keys.get("target", "y"), ArraysConfig(name="arrays", **rest))

    return read


READERS: dict[str, Read] = {
    "careful CSV": _file(".csv"),
    "plain CSV": _file(".csv", 0),
    "Parquet": _file(".parquet"),
    "Arrow": _file(".arrow"),
    "Polars": _frame(pandas=False),
    "pandas": _frame(pandas=True),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))


@every_reader
@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
@pytest.mark.parametrize("blank", ["x", "y"])
def test_rows_with_blanks_are_left_out_of_a_regression(
    read: Read, tmp_path: Path, targets: list[str], blank: str
) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0], "z": [7.0, 8.0, 9.0]})
    frame = frame.with_columns(pl.when(pl.col("x") == 2).then(None).otherwise(pl.col(blank)).alias(blank))
    frame = frame.select("x", *targets)
    raw = read(frame, tmp_path, {"task": "regression", "missing": "drop_rows", "target": targets})
    assert raw.x.tolist() == [[1], [3]] and raw.targets == tuple(targets)
    assert raw.y[:, 0].tolist() == [4, 6] and "1 of 3 rows" in raw.notes[0]


def test_rows_left_out_of_a_test_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "u.csv").write_text("x,y\n1,a\n,b\n2,b\n")
    test = str(tmp_path / "u.csv")
    keys: dict[str, Any] = {"missing": "drop_rows", "test_path": test}
    raw = tables.load_csv(CsvConfig(name="csv", path=str(tmp_path / "t.csv"), target="y", **keys))
    assert raw.notes == (f"1 of 3 rows of {test} have a blank cell and are left out",)
    assert raw.test is not None and len(raw.test.x) == 2


LABELS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "spaces": ([" a", "a ", "b", "a"], ("a", "b")),
    "one spelling": (["True", "False", "True", "True"], ("False", "True")),
    "several spellings": (["true", "True", "FALSE", "false"], ("false", "true")),
    "truth beside text": (["true", "True", "no", "no"], ("True", "no", "true")),
}


@every_reader
@pytest.mark.parametrize("case", LABELS)
def test_labels_are_the_same_classes(read: Read, tmp_path: Path, case: str) -> None:
    labels, classes = LABELS[case]
    raw = read(pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": labels}), tmp_path, {})
    assert raw.classes == classes
    found = [raw.classes[k] for k in raw.y]
    assert [name.lower() for name in found] == [label.strip().lower() for label in labels]


@pytest.mark.parametrize(
    "spelling", [str, lambda truth: str(truth).lower(), lambda truth: str(truth).upper()]
)
def test_truth_values_are_classes_in_any_case(tmp_path: Path, spelling: Callable[[bool], str]) -> None:
    truth = [k % 3 == 0 for k in range(60)]
    pl.DataFrame({"x": np.arange(60.0), "y": truth}).write_parquet(tmp_path / "t.parquet")
    lines = "".join(f"{k},{spelling(one)}\n" for k, one in enumerate(truth))
    (tmp_path / "u.csv").write_text("x,y\n" + lines)
    settings = CsvConfig(
        name="csv", path=str(tmp_path / "t.parquet"), target="y", test_path=str(tmp_path / "u.csv")
    )
    data = datasets.load(settings)
    assert data.classes == ("False", "True") and data.test.y.tolist() == truth
    assert tables.class_numbers([spelling(True), "maybe"], data.classes).tolist() == [1, -1]


NUMBERS: dict[str, pl.Series] = {
    "decimals": pl.Series([Decimal("1.25"), Decimal("-3.5"), None, Decimal("7")]),
    "128 bits": pl.Series([1, -2, None, 2**70], dtype=pl.Int128),
    "8 bits": pl.Series([1, 2, None, 3], dtype=pl.UInt8),
    "float32": pl.Series([1.5, 2, None, 3], dtype=pl.Float32),
    "truth": pl.Series([True, False, None, True]),
}


@every_reader
@pytest.mark.parametrize("case", NUMBERS)
def test_every_type_of_numbers_is_numbers(read: Read, tmp_path: Path, case: str) -> None:
    column = NUMBERS[case]
    raw = read(pl.DataFrame({"x": column, "y": list("abab")}), tmp_path, {"missing": "impute"})
    np.testing.assert_array_equal(raw.x[:, 0], [math.nan if v is None else float(v) for v in column])
    assert raw.kinds is not None and raw.kinds[0].holds == ("boolean" if case == "truth" else "number")


OTHERS: dict[str, tuple[pl.Series, str]] = {
    "structs": (pl.Series([{"a": 1}] * 4), "Struct"),
    "lists": (pl.Series([[1]] * 4), "List(Int64)"),
    "arrays": (pl.Series([[1]] * 4, dtype=pl.Array(pl.Int64, 1)), "Array"),
    "bytes": (pl.Series([b"1"] * 4), "Binary"),
    "times": (pl.Series([datetime.time(1)] * 4), "Time"),
    "dates": (pl.Series([datetime.date(2024, 1, 1)] * 4), "Date"),
    "durations": (pl.Series([datetime.timedelta(1)] * 4), "Duration"),
    "objects": (pl.Series([object()] * 4, dtype=pl.Object), "object"),
    "complex numbers": (pl.Series([1j] * 4, dtype=pl.Object), "complex"),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("role", ["feature", "category", "weight"])
def test_any_other_type_is_named(case: str, role: str) -> None:
    column, name = OTHERS[case]
    keys: Any = {"category": {"categories": ["x"]}, "weight": {"weight": "x"}}.get(role, {})
    frame = pl.DataFrame({"x": column, "n": [1, 2, 3, 4], "y": list("abab")})
    with pytest.raises(UserError, match=r"'x': has the type .*, which is neither a number nor text") as e:
        READERS["Polars"](frame, Path(), keys)
    assert name in str(e.value)
    assert ("data.drop=[x]" in str(e.value)) == (role != "weight")


@pytest.mark.parametrize("labels", [[[1], [2]], [{"a": 1}, {"a": 2}], [b"a", b"b"], [datetime.time(1)] * 2])
def test_labels_of_other_types(labels: list[Any]) -> None:
    for dtype in (None, pl.Array(pl.Int64, 1)) if labels[0] == [1] else (None,):
        frame = pl.DataFrame({"x": [1, 2], "y": pl.Series(labels, dtype=dtype)})
        with pytest.raises(UserError, match=r"labels?|bytes"):
            READERS["Polars"](frame, Path(), {})


def test_a_type_is_named_in_prediction_without_keys_of_training() -> None:
    frame = pl.DataFrame({"x": [[1], [2]]})
    with pytest.raises(UserError, match=r"turn it into numbers or text$"):
        frames.features_of(frame, Layout(["x"], [0], None), "t", training=False)


@every_reader
def test_names_of_columns_are_stripped(read: Read, tmp_path: Path) -> None:
    frame = pl.DataFrame({" x ": [1.0, 2.0], "z\t": [1.0, 2.0], " y": ["a", "b"]})
    raw = read(frame, tmp_path, {"drop": ["z"]})
    assert raw.columns == ("x",) and raw.classes == ("a", "b")


@every_reader
@pytest.mark.parametrize(("name", "words"), [("x ", "column 'x' is duplicated"), (" ", "has no name")])
def test_names_that_are_none_once_stripped(read: Read, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(pl.DataFrame({"x": [1.0, 2.0], name: [1.0, 2.0], "y": ["a", "b"]}), tmp_path, {})


BIG = [str(2**53), str(2**53 + 1)]
CATEGORIES: dict[str, tuple[list[Any], list[str | None], tuple[str, ...]]] = {
    "floats": ([1.0, 10.0, 2.5, 1.0], ["1", "10", "2.5", "1"], ("1", "2.5", "10")),
    "integers": ([1, 10, 2, 1], ["1", "10", "2", "1"], ("1", "2", "10")),
    "floats with blanks": ([1.0, None, 2.0, 1.0], ["1", None, "2", "1"], ("1", "2")),
    "texts of numbers": (["01067", "1.0", "1067", "+1"], ["1067", "1", "1067", "1"], ("1", "1067")),
    "words for blanks": (["1", "NA", "1.0", "2"], ["1", None, "1", "2"], ("1", "2")),
    "texts": (["01", "1", "NA", "a"], ["01", "1", "NA", "a"], ("01", "1", "NA", "a")),
    "many digits": ([*map(int, BIG), 1, 1], [*BIG, "1", "1"], ("1", *BIG)),
}


@every_reader
@pytest.mark.parametrize("case", CATEGORIES)
def test_a_category_of_numbers_is_the_number(read: Read, tmp_path: Path, case: str) -> None:
    column, expected, names = CATEGORIES[case]
    frame = pl.DataFrame({"x": column, "y": list("abab")})
    raw = read(frame, tmp_path, {"categories": ["x"], "missing": "impute"})
    assert raw.kinds == (Kind("category", names, blank=True),)
    assert [None if math.isnan(code) else names[int(code)] for code in raw.x[:, 0]] == expected


@pytest.mark.parametrize("cell", ["1", "1.0", "01", "+1", "1e0"])
def test_a_category_of_numbers_is_found_again(cell: str) -> None:
    """By its value, in a test file and in prediction."""
    code = coder(Kind("category", ("1", "2.5", "10"), blank=True))
    assert code(cell) == 0 and code("2.50") == 1 and code("3") == UNSEEN and math.isnan(code("NA"))
    assert coder(Kind("category", ("01", "1", "x")))("1.0") == UNSEEN


def test_pandas_categories_are_categories() -> None:
    import pandas as pd

    frame = pd.DataFrame({"x": pd.Categorical([1, 2, None, 1]), "y": list("abab")})
    bins = pd.cut(np.arange(4.0), 2)
    raw = arrays.raw_of(frame.assign(z=bins), "y", ArraysConfig(name="arrays", missing="impute"))
    assert raw.kinds is not None and [kind.holds for kind in raw.kinds] == ["category", "category"]
    assert raw.kinds[0].categories == ("1", "2") and raw.kinds[1].categories == tuple(
        map(str, bins.categories)
    )


NOTES: dict[str, tuple[list[str], str]] = {
    "decimal commas": ([f"{k},5" for k in range(30)], "write points: 1.5"),
    "few decimal commas": (["1,5", "2,5", "3"], "write points: 1.5"),
    "dates": ([f"2024-01-{k + 1:02d}" for k in range(30)], "days since"),
    "dates of Europe": ([f"{k + 1:02d}.01.2024" for k in range(30)], "days since"),
    "percentages": ([f"{k} %" for k in range(30)], "write 12.5 for 12.5 %"),
    "thousands": ([f"{k + 1},234" for k in range(30)], "write 1234.5 for 1,234.5"),
    "points for thousands": (["1.234.567", "2.345.678", "3.456.789"], "write 1234.5 for 1,234.5"),
    "thousands that are numbers": (["2.999", "12", "1.500"], "2.999 is read as 2.999, not as 2,999"),
}


@pytest.mark.parametrize("case", NOTES)
def test_texts_that_a_person_takes_for_numbers(tmp_path: Path, case: str) -> None:
    """A preview says so, and training, where they are too many for categories."""
    cells, note = NOTES[case]
    rows = "".join(f"{k};{cell};{'ab'[k % 2]}\n" for k, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"n;x;y\n{rows}0;;a\n")
    settings = CsvConfig(name="csv", path=str(tmp_path / "t.csv"), target="y", missing="impute")
    facts = {one.name: one for one in preview(settings).columns}
    assert note in facts["x"].note and "like an id" not in facts["x"].note
    if len(cells) > 20:
        with pytest.raises(UserError, match=re.escape(note)):
            datasets.load(settings)


def test_a_preview_reads_weights_and_the_test_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("w,x,y\n" + "".join(f"-1,{k},{1000000 + k}\n" for k in range(30)))
    keys: dict[str, Any] = {"path": str(tmp_path / "t.csv"), "target": "y", "task": "regression"}
    facts = {one.name: one for one in preview(CsvConfig(name="csv", weight="w", **keys)).columns}
    assert "the weight -1: an error" in facts["w"].note
    assert facts["y"].values == "1000000 to 1000029" and facts["y"].note == ""
    (tmp_path / "u.csv").write_text("w,x,z\n1,1,2\n")
    with pytest.raises(UserError, match=r"u\.csv has no column 'y'"):
        preview(CsvConfig(name="csv", test_path=str(tmp_path / "u.csv"), **keys))
