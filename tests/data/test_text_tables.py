"""Tables with text and blanks: what Polars reads is what Python's own reader reads, bit for bit, and both
mean what the documentation says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.test_tables import LABELS, NUMBERS, ODD_LABELS, ODD_NUMBERS
from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data import blocks, columns, files, plain_csv, tables
from ffn_bench.data.columns import BLANK_WORDS, Kind, Layout, Table
from ffn_bench.data.rows import Raw
from ffn_bench.errors import UserError

Outcome = tuple[object, ...]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "t.csv"


def load(file: Path, polars_bytes: float = math.inf, **keys: object) -> Raw:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "POLARS_BYTES", polars_bytes)
        config = CsvConfig(name="csv", path=str(file), **{"target": "y", **keys})  # type: ignore[arg-type]
        return tables.load_csv(config)


def outcome(file: Path, polars_bytes: float, **keys: object) -> Outcome:
    try:
        raw = load(file, polars_bytes, **keys)
    except UserError as e:
        return (str(e),)
    weights = None if raw.weights is None else raw.weights.tobytes()
    return raw.x.tobytes(), raw.x.shape, raw.y.tolist(), raw.classes, raw.kinds, raw.notes, weights


CELLS = st.sampled_from(
    ["", " ", '""', *sorted(BLANK_WORDS), "true", "FALSE", "True", " a", "b ", "ü", '"a, b"', '" c"', '"1"']
)
WORDS = st.sampled_from(["red", "green", "blue", "1", "2.0", "01", "", "NA", '"red"', " red", '"x;y"'])
TRUTH = st.sampled_from(["true", "false", "True", "FALSE", "", '"true"', "NA"])
BLANKED = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["", "", "NA", "?", '""', "nan"]))
COLUMNS = st.sampled_from([NUMBERS, BLANKED, WORDS, TRUTH, CELLS, st.one_of(NUMBERS, CELLS, WORDS)])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Bytes of a table in which columns hold numbers, words, truth values, blanks, or all of these."""
    kinds = draw(st.lists(COLUMNS, min_size=1, max_size=4))
    if draw(st.integers(0, 3)) == 0:
        kinds.append(st.one_of(ODD_NUMBERS, WORDS))
    target = draw(st.integers(0, len(kinds)))
    labels = st.one_of(LABELS, LABELS, ODD_LABELS) if draw(st.integers(0, 3)) == 0 else LABELS
    cells = [*kinds[:target], labels, *kinds[target:]]
    names = [f"c{k}" for k in range(len(kinds))]
    lines = [",".join([*names[:target], "y", *names[target:]])]
    for _ in range(draw(st.integers(1, 12))):
        lines.append(",".join(draw(cell) for cell in cells))
    if draw(st.integers(0, 5)) == 0:
        k = draw(st.integers(0, len(lines) - 1))
        lines[k] = draw(st.sampled_from([lines[k] + ",", lines[k].rpartition(",")[0], ""]))
    return ("\n".join(lines) + draw(st.sampled_from(["\n", "", "\n\n"]))).encode()


@settings(max_examples=400, deadline=None)
@given(
    content=texts(),
    missing=st.sampled_from(["error", "impute", "drop_rows"]),
    categories=st.sampled_from([[], [], ["c0"]]),
    drop=st.sampled_from([[], [], ["c1"]]),
    sample=st.sampled_from([1, 2, 100]),
)
def test_polars_reads_what_pythons_reader_reads(
    file: Path, content: bytes, missing: str, categories: list[str], drop: list[str], sample: int
) -> None:
    file.write_bytes(content)
    keys = {"missing": missing, "categories": categories, "drop": drop}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_csv, "SAMPLE", sample)  # guesses of kinds are wrong, too
        assert outcome(file, 0, **keys) == outcome(file, math.inf, **keys)


PLAIN = {
    "text": b"f,s,y\n1,red,a\n2,green,b\n",
    "blanks": b"f,s,y\n1,,a\n,green,b\n",
    "blanks in the last column": b"y,f,s\na,1,\nb,2,green\n",
    "quoted commas and a blank at the end": b'y,s,f\na,"x, y",1\nb,"z, w",\n',
    "words among numbers": b"f,s,y\n1,red,a\nNA,green,b\n2,red,b\n",
    "truth values": b"f,s,y\n1,True,a\n2,FALSE,b\n",
    "a text that begins with numbers": b"s,y\n" + b"1,a\n" * 3 + b"x,b\n" * 4,
    "numbers after words": b"f,y\n" + b"NA,a\n" * 3 + b"1,b\n" * 4,
}


@pytest.mark.parametrize("case", PLAIN)
def test_clean_tables_are_read_by_polars(file: Path, case: str) -> None:
    file.write_bytes(PLAIN[case])
    table = plain(file)
    assert table is not None
    raw = load(file, missing="impute")
    assert raw.x.tobytes() == table.x.tobytes()


def plain(file: Path) -> Table | None:
    config = CsvConfig(name="csv", path=str(file), target="y", missing="impute")
    layout_of = tables.Columns(config, ["y"], str(file)).layout
    return plain_csv.read_plain(files.text_file(file), ",", layout_of)


def test_a_row_too_short_and_one_too_long_beside_blanks(file: Path) -> None:
    """They have as many cells together as two rows; Polars is not asked what it makes of them."""
    for content in (b"y,f,g\na,1\nb,2,3,4\n", b'y,s,g\na,"p,q"\nb,"r,s",3,4\n'):
        file.write_bytes(content)
        assert plain(file) is None
        with pytest.raises(UserError, match="line 2: has 2 cells where the header has 3"):
            load(file, 0, missing="impute")


# --- what columns are taken for -------------------------------------------------------------------------

HOLDS: dict[str, tuple[list[str], str]] = {
    "numbers": (["1", "2.5", "-3e5"], "number"),
    "numbers and blanks": (["1", "", "2"], "number"),
    "numbers and words": (["NA", "?", "2"], "number"),
    "truth": (["True", "false", "TRUE"], "boolean"),
    "truth and blanks": (["True", "", "NA"], "boolean"),
    "text": (["red", "green", "red"], "category"),
    "text and as many numbers": (["red", "1", "2", "green"], "category"),
    "truth and numbers": (["true", "1"], "category"),
    "words that are text beside text": (["NA", "red", "NA"], "category"),
    "hexadecimal": (["0x10", "0x11"], "category"),
    "digits of another script": (["٣", "٤"], "category"),
}


@pytest.mark.parametrize("polars_bytes", [0, math.inf])
@pytest.mark.parametrize("case", HOLDS)
def test_what_a_column_holds(file: Path, case: str, polars_bytes: float) -> None:
    cells, holds = HOLDS[case]
    rows = [(cell, label) for cell in cells for label in "ab"]
    file.write_text("f,g,y\n" + "".join(f"{k},{cell},{label}\n" for k, (cell, label) in enumerate(rows)))
    kinds = load(file, polars_bytes, missing="impute").kinds
    assert kinds is not None and kinds[1].holds == holds


def test_a_number_table_has_no_kinds(file: Path) -> None:
    file.write_text("f,y\n1,a\n2,b\n")
    raw = load(file)
    assert raw.kinds is None and raw.notes == ()


def test_categories_are_in_their_natural_order(file: Path) -> None:
    file.write_text("s,n,y\nred,10,a\nblue,9,b\n,9,a\n")
    raw = load(file, missing="impute", categories=["n"])
    assert raw.kinds == (Kind("category", ("blue", "red"), True), Kind("category", ("9", "10"), True))
    np.testing.assert_array_equal(raw.x, [[1, 1], [0, 0], [math.nan, 0]])


def test_rows_with_blanks_are_left_out(file: Path) -> None:
    file.write_text("f,s,w,y\n1,red,1,a\n,red,1,b\n2,,1,a\n3,red,NA,b\n4,blue,2,b\n5,red,0,\n6,red,1,a\n")
    raw = load(file, missing="drop_rows", weight="w")
    assert raw.x.tolist() == [[1, 1], [4, 0], [6, 1]] and raw.y.tolist() == [0, 1, 0]
    assert raw.weights is not None and raw.weights.tolist() == [1, 2, 1]
    assert raw.notes == (f"4 of 7 rows of {file} have a blank cell and are left out",)


# --- blocks ---------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(content=texts(), size=st.integers(1, 80), blank=st.booleans())
def test_blocks_with_known_kinds_are_the_whole(content: bytes, size: int, blank: bool) -> None:
    import io

    from ffn_bench.data.careful_csv import TextRows

    known = (Kind("category", ("red", "1"), blank), Kind("boolean", None, blank), Kind("number", None, blank))

    def layout_of(header: list[str]) -> Layout:
        features = [k for k, name in enumerate(header) if name != "y"]
        label = header.index("y") if "y" in header else None
        return Layout(header, features, label, tuple(known[k % 3] for k in range(len(features))))

    def whole() -> object:
        try:
            rows = TextRows(io.StringIO(content.decode(), newline=""), ",", "t")
            table = rows.table(layout_of(rows.header()), blank_labels=True)
        except UserError as e:
            return str(e)
        return table.x.tobytes(), [table.labels[code] for code in table.codes]

    def in_blocks() -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK", size)
            try:
                parts = [b.table for b in blocks.read_blocks(io.BytesIO(content), "t", ",", layout_of)]
            except UserError as e:
                return str(e)
        x = b"".join(part.x.tobytes() for part in parts)
        return x, [part.labels[code] for part in parts for code in part.codes]

    expected, found = whole(), in_blocks()
    if isinstance(expected, str) and "finite" not in expected:
        # What is not finite is looked for when the others have been read: of a block, or of all.
        assert found == expected or (isinstance(found, str) and "finite" in found)
    else:
        assert found == expected


def test_unseen_categories_are_coded_as_such() -> None:
    import io

    layout = Layout(["s", "y"], [0], 1, (Kind("category", ("a", "b"), True),))
    stream = io.BytesIO(b"s;y\nb;p\nnew;q\n;p\n")
    (block,) = blocks.read_blocks(stream, "t", None, lambda header: layout)
    np.testing.assert_array_equal(block.table.x, [[1], [columns.UNSEEN], [math.nan]])
