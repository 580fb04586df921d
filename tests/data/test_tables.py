"""A person's own table: what Polars reads is what Python's own reader reads, bit for bit."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data import files, plain_csv, tables
from ffn_bench.data.columns import Layout, Table
from ffn_bench.errors import UserError

Outcome = str | tuple[bytes, tuple[int, ...], tuple[float, ...], tuple[str, ...]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "t.csv"


def outcome(file: Path, delimiter: str, polars_bytes: float) -> Outcome:
    """What `load_csv` returns, to the bit, or its message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "POLARS_BYTES", polars_bytes)
        try:
            raw = tables.load_csv(CsvConfig(name="csv", path=str(file), target="y", delimiter=delimiter))
        except UserError as e:
            return str(e)
    assert raw.x.dtype == np.float64
    assert raw.y.dtype == np.int64
    assert raw.x.flags.c_contiguous
    assert raw.x.flags.writeable
    return raw.x.tobytes(), raw.x.shape, tuple(raw.y.tolist()), raw.classes


def plain(file: Path, delimiter: str = ",") -> Table | None:
    """What Polars reads, with the label `y`."""
    return plain_csv.read_plain(files.text_file(file), delimiter, layout_of)


def layout_of(header: list[str]) -> Layout:
    """The label is `y`; all others are numbers."""
    label = header.index("y")
    return Layout(header, [k for k in range(len(header)) if k != label], label)


def assert_equal(file: Path, content: bytes, delimiter: str = ",") -> None:
    file.write_bytes(content)
    assert outcome(file, delimiter, 0) == outcome(file, delimiter, math.inf)


# --- tables, damaged and not ----------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["0", "-0.0", "1", "+1", " 1", "1 ", "\t2", "3\t", '"4"', '" 5"', '"6 "', ".5", "5.", "007"]
    ),
)
# fmt: off
ODD_NUMBERS = st.sampled_from([
    "", " ", '""', "nan", "NaN", "-inf", "infinity", "1e400", "1e-400", "1_000", "0x10", "1f", "1d5", "e",
    "١", "１", "1,5", '"1,5"', "\x0c1", "1\x0b", "\xa01", "1\u2003", "\ufeff1", "true", "null", "NA", "-",
    "1e", "--1", "'1'", '1"', '"1', ' "1"', '"1"2', '"1""2"', '"1\n"', "1\r", "#1", "1;2", "0" * 200_000,
])
LABELS = st.sampled_from([
    "a", "b", "b ", " a", "1", "1.0", "01", "ü", "\u2028", "a b", '"a"', '"a, b"', '" a"', "'a'", "x\x01",
])
ODD_LABELS = st.sampled_from([
    "", " ", '""', '" "', "\xa0", "\x85", '"a""b"', 'a"b', '"a"b', '"a\nb"', '"a\r\nb"', '"', "\x1b[31m",
    "\ufeff", "\0", "x" * 200_000, '"' + "x," * 100_000 + '"',
])
# fmt: on
HEADERS = st.sampled_from(
    ["f", "g ", '"h"', "ü", '"f, g"', "0", "2", " ", "f", '"f\ng"', 'f"', "\ufeff", "x\x01"]
)


@st.composite
def tables_of_text(draw: st.DrawFn) -> tuple[bytes, str]:
    """Bytes of a table, most of it in order, and its delimiter."""
    n_features, target = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    odd = draw(st.sampled_from([False, False, True]))
    numbers = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD_NUMBERS) if odd else NUMBERS
    labels = st.one_of(LABELS, LABELS, LABELS, ODD_LABELS) if odd else LABELS
    delimiter = draw(st.sampled_from([*plain_csv.DELIMITERS * 4, " ", ".", "1", "e", "ü", "-"]))
    names = (
        draw(st.lists(HEADERS, min_size=n_features, max_size=n_features))
        if odd
        else ["f", "g ", '"h"'][:n_features]
    )
    lines = [[*names[:target], "y", *names[target:]]]
    for _ in range(draw(st.integers(1, 6))):
        row = draw(st.lists(numbers, min_size=n_features, max_size=n_features))
        lines.append([*row[:target], draw(labels), *row[target:]])
    if odd and draw(st.booleans()):
        row = draw(st.sampled_from(lines))
        row[:] = draw(st.sampled_from([row[:-1], [*row, "1"], [], [" "], [*row, ""]]))
    ends = (
        st.sampled_from(["\n", "\r\n", "\n", "\n\n", "\r", "\n \n"])
        if odd
        else st.just(draw(st.sampled_from(["\n", "\r\n"])))
    )
    text = "".join(delimiter.join(line) + draw(ends) for line in lines)
    if draw(st.booleans()):
        text = text.rstrip("\r\n") + draw(st.sampled_from(["", "\n\n", "\r\n\r\n", "\n \n", "\n,,"]))
    if draw(st.integers(0, 4)) == 0:
        text = "\ufeff" + text
    return text.encode(draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "cp1252"])), "replace"), delimiter


@settings(max_examples=200)
@given(table=tables_of_text())
def test_polars_reads_what_pythons_reader_reads(file: Path, table: tuple[bytes, str]) -> None:
    assert_equal(file, *table)


@settings(max_examples=200)
@given(table=tables_of_text(), data=st.data())
def test_damaged_tables_mean_the_same_or_have_the_same_message(
    file: Path, table: tuple[bytes, str], data: st.DataObject
) -> None:
    content, delimiter = bytearray(table[0][:2000]), table[1]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = start + data.draw(st.sampled_from([0, 0, 1, 1, 2, 9]))
        byte = st.sampled_from(
            [b"", b'"', b",", b"\n", b"\r", b"\0", b" ", b"\xff", b"9", b"_", b'""', b"\xef\xbb\xbf"]
        )
        content[start:stop] = data.draw(byte)
    assert_equal(file, bytes(content), delimiter)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 60)), min_size=1))
def test_numbers_are_rounded_correctly(file: Path, numbers: list[tuple[float, int]]) -> None:
    """Decimal numbers halfway between two floats, and next to such, in as many digits as it takes."""
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 1100
        halves = [(Decimal(a) + Decimal(math.nextafter(a, 0))) / 2 for a, _ in numbers]
        cells = [f"{half:e}" for half in halves] + [f"{half.next_plus():e}" for half in halves]
    cells += [f"{a:.{digits}e}" for a, digits in numbers]
    cells = [cell for cell in cells if math.isfinite(float(cell))]
    file.write_text("f,y\n" + "".join(f"{cell},a\n" for cell in cells))
    table = plain(file)
    assert table is not None
    assert table.x.tobytes() == np.array([float(cell) for cell in cells]).tobytes()


# --- what is read by which ------------------------------------------------------------------------------

PLAIN: dict[str, bytes] = {
    "numbers and words": b"f,g,y\n1.5,2,a\n-3e5,+4,b\n",
    "no line feed at the end": b"f,y\n1,a\n2,b",
    "blank lines at the end": b"f,y\n1,a\n2,b\n\n\n",
    "lines of Windows": b"f,y\r\n1,a\r\n2,b\r\n",
    "blank lines of Windows at the end": b"f,y\r\n1,a\r\n2,b\r\n\r\n",
    "byte order mark": b"\xef\xbb\xbff,y\n1,a\n2,b\n",
    "byte order mark before a quote": b'\xef\xbb\xbf"f","y"\n1,a\n2,b\n',
    "quotes": b'"f","y"\n"1","a"\n"2.5","b"\n',
    "quoted delimiters": b'"f","y"\n1,"a, b"\n2,"c"\n',
    "quotes of Windows": b'f,y\r\n1,"a, b"\r\n2,"c"',
    "spaces": b" f , y\n 1, a\n 2,b \n",
    "other alphabets": "größe,y\n1,ü\n2,日本\n".encode(),
    "numbers as labels": b"f,y\n1,1\n2,1.0\n3,01\n",
    "control characters in a label": b"f,y\n1,\x1b[31m\n2,\x01\n",
    "label first": b"y,f\na,1\nb,2\n",
    "long label": b"f,y\n1," + b"a" * 130_000 + b"\n2,b\n",
    "long lines": b"".join(b"f%d," % k for k in range(9_000))
    + b"y\n"
    + (b"10000000000000," * 9_000 + b"a\n")
    + b"1," * 9_000
    + b"b\n",
}

DOUBTFUL: dict[str, bytes] = {
    "doubled quote": b'f,y\n1,"a""b"\n2,c\n',
    "line feed in a cell": b'f,y\n1,"a\nb"\n2,c\n',
    "quote inside a cell": b'f,y\n1,a"b\n2,c\n',
    "blank line": b"f,y\n1,a\n\n2,b\n",
    "space after a number": b"f,y\n1 ,a\n2,b\n",
    "line feed of old": b"f,y\r1,a\r2,b\r",
    "carriage return in a label": b"f,y\n1,a\rb\n2,c\n",
    "NUL in a label": b"f,y\n1,a\0b\n2,c\n",
    "not UTF-8": b"f,y\n1,\xe9\n2,c\n",
    "a cell beyond the limit": b"f,y\n0." + b"0" * 140_000 + b"1,a\n2,b\n",
    "a label beyond the limit": b"f,y\n1," + b"a" * 140_000 + b"\n2,b\n",
    "a quoted label beyond the limit": b'f,y\n1,"' + b"a," * 70_000 + b'"\n2,b\n',
    "second byte order mark": b"\xef\xbb\xbf\xef\xbb\xbff,y\n1,a\n2,b\n",
    "byte order mark in the second line": b"y,f\n\xef\xbb\xbfa,1\nb,2\n",
    "like something compressed": b"y,f\nx\x01,1\nb,2\n",
    "a delimiter at the end": b'f,y\n1,a\n2,"b",',
    "a delimiter at the end of numbers": b'y,f\na,1\nb,"2",',
    "one column": b"y\na\nb\n",
    "a row too short and one too long": b"f,g,y\n1,2\n1,2,a,b\n",
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_tables_are_read_by_polars(file: Path, case: str) -> None:
    delimiter = ","
    assert_equal(file, PLAIN[case])
    assert not isinstance(outcome(file, delimiter, math.inf), str)
    assert plain(file, delimiter) is not None


@pytest.mark.parametrize("case", DOUBTFUL)
def test_doubtful_tables_are_left_to_pythons_reader(file: Path, case: str) -> None:
    assert_equal(file, DOUBTFUL[case])
    if case != "second byte order mark":
        assert plain(file) is None


def test_cells_are_counted() -> None:
    """So that nothing depends on what a release of Polars does with rows too long or too short."""
    assert plain_csv._cells_are_plain(b"f,g,y\n1,2,a\n1,2,b\n", ",", 6)
    assert not plain_csv._cells_are_plain(b"f,g,y\n1,2,a\n1,2,b,\n", ",", 6)
    assert plain_csv._cells_are_plain(b'"f",g,y\n1,2,"a, b"\n1,2,",,,"\n', ",", 6)
    assert not plain_csv._cells_are_plain(b'"f",g,y\n1,2,"a, b"\n1,2,",,,",\n', ",", 6)


@pytest.mark.parametrize("delimiter", plain_csv.DELIMITERS)
def test_delimiters(file: Path, delimiter: str) -> None:
    file.write_text(PLAIN["quoted delimiters"].decode().replace(",", delimiter))
    table = plain(file, delimiter)
    assert table is not None
    assert [table.labels[code] for code in table.codes] == [f"a{delimiter} b", "c"]
    assert table.x.tolist() == [[1.0], [2.0]]


def test_size_decides(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small table does not wait for the import of Polars."""
    calls: list[Path] = []
    monkeypatch.setattr(tables, "read_plain", lambda text, *_: calls.append(text.path))
    file.write_bytes(b"f,y\n1,a\n2,b\n")
    assert isinstance(outcome(file, ",", 13), tuple)
    assert calls == []
    assert isinstance(outcome(file, ",", 12), tuple)
    assert calls == [file]


def test_little_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(PLAIN["quotes"])
    memory = type("Memory", (), {"available": 3 * len(PLAIN["quotes"]) - 1})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert plain(file) is None


def test_a_forked_process_reads_without_waiting_for_polars(file: Path) -> None:
    file.write_bytes(PLAIN["quotes"])
    expected = outcome(file, ",", 0)  # by Polars, whose threads run from now on
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=_send_outcome, args=(its, outcome, file), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == expected
    process.join()


def _send_outcome(connection, outcome: Callable[..., Outcome], file: Path) -> None:  # type: ignore[no-untyped-def]
    connection.send(outcome(file, ",", 0))
