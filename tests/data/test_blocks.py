"""A table that is read block by block: the rows that it has at once, to the bit, or the same message."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.test_tables import DOUBTFUL, PLAIN, tables_of_text
from ffn_bench.data import blocks, plain_csv
from ffn_bench.data.careful_csv import TextRows
from ffn_bench.data.columns import Layout, Table
from ffn_bench.errors import UserError, data_error

Outcome = str | tuple[bytes, tuple[int, ...], tuple[str, ...]]


def layout_of(header: list[str]) -> Layout:
    """The label is `y`, where there is one; all others are features."""
    label = header.index("y") if "y" in header and len(header) > 1 else None
    return Layout(header, [k for k in range(len(header)) if k != label], label)


def of(x: Sequence[np.ndarray], labels: Sequence[str]) -> Outcome:
    numbers = np.concatenate([*x, np.empty((0, x[0].shape[1] if x else 0))])
    return numbers.tobytes(), numbers.shape, tuple(labels)


def at_once(content: bytes, delimiter: str) -> Outcome:
    """All rows by Python's reader."""
    try:
        if not content.removeprefix(plain_csv.BYTE_ORDER_MARK):
            raise data_error("t", "is empty", "give it a header and rows")
        rows = TextRows(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline=""), delimiter, "t")
        table = rows.table(layout_of(rows.header()), blank_labels=True)
    except UserError as e:
        return str(e)
    return of([table.x], [table.labels[code] for code in table.codes]) if len(table.x) else "no rows"


def in_blocks(content: bytes, delimiter: str, size: int) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", size)
        try:
            tables = [b.table for b in blocks.read_blocks(io.BytesIO(content), "t", delimiter, layout_of)]
        except UserError as e:
            return str(e)
    labels = [table.labels[code] for table in tables for code in table.codes]
    return of([table.x for table in tables], labels) if sum(len(t.x) for t in tables) else "no rows"


@settings(deadline=None, derandomize=True, max_examples=300)
@given(table=tables_of_text(), size=st.integers(1, 60), data=st.data())
def test_blocks_are_the_whole(table: tuple[bytes, str], size: int, data: st.DataObject) -> None:
    content, delimiter = table
    if data.draw(st.booleans()):  # damage
        at = data.draw(st.integers(0, len(content)))
        byte = st.sampled_from([b"", b'"', b",", b"\n", b"\r", b"\0", b" ", b'""', b"\xef\xbb\xbf"])
        content = content[:at] + data.draw(byte) + content[at + data.draw(st.sampled_from([0, 1])) :]
    whole = at_once(content, delimiter)
    parts = in_blocks(content, delimiter, size)
    if isinstance(whole, str) and "is not UTF-8" in whole:
        assert isinstance(parts, str)  # a fault before it may be found first, or after
    elif isinstance(whole, str) and "finite" not in whole:
        # What is not finite is looked for when the others have been read: of a block, or of all.
        assert parts == whole or (isinstance(parts, str) and "finite" in parts)
    else:
        assert parts == whole


@pytest.mark.parametrize("size", [3, 40, 2**22])
@pytest.mark.parametrize("case", [*PLAIN, *DOUBTFUL])
def test_known_tables(case: str, size: int) -> None:
    content = {**PLAIN, **DOUBTFUL}[case]
    if len(content) > 10_000 and size < 2**20:
        size = 50_000
    assert in_blocks(content, ",", size) == at_once(content, ",")


def test_cells_in_quotes_may_hold_ends_of_lines() -> None:
    rows = "".join(f'{k},"a\nb, ""{k}"" \n",{k / 7}\n' for k in range(200))
    content = b"f,y,g\n" + rows.encode()
    for size in (10, 100, 1000):
        assert in_blocks(content, ",", size) == at_once(content, ",")


def test_a_quote_inside_a_word_hides_no_end_of_a_row() -> None:
    """Python's reader takes it for a character; counting quotes does not tell where rows end then."""
    content = b"f,y\n" + b"".join(
        b'%d,5" pipe\n' % k if k % 7 == 3 else b'%d,"x\ny"\n' % k for k in range(300)
    )
    for size in (10, 100, 1000):
        assert in_blocks(content, ",", size) == at_once(content, ",")


def test_most_of_a_table_is_read_by_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    """One odd row costs the speed of its block alone."""
    rows = [f"{k},{k / 7},word\n" for k in range(1000)]
    rows[500] = '1,2,"a ""word"""\n'
    carefully, table = [], TextRows.table

    def noted(self: TextRows, layout: Layout, blank_labels: bool = False) -> Table:
        carefully.append(self.line)
        return table(self, layout, blank_labels)

    monkeypatch.setattr(TextRows, "table", noted)
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    content = ("f,g,y\n" + "".join(rows)).encode()
    numbers = [b.table.x for b in blocks.read_blocks(io.BytesIO(content), "t", ",", layout_of)]
    assert sum(map(len, numbers)) == 1000 and len(carefully) == 1


def test_columns_that_are_of_no_use_may_hold_anything() -> None:
    content = b'a,b,c,d\n1,,"x\ny",2\n3,nan,_,4\n5,1e999,\xc3\xbc,6\n'
    (block,) = blocks.read_blocks(io.BytesIO(content), "t", ",", lambda header: Layout(header, [3, 0], None))
    assert block.table.x.tolist() == [[2, 1], [4, 3], [6, 5]] and block.table.columns == ("d", "a")
    assert block.table.labels == [] and block.first_line == 2


def test_an_open_quote_does_not_read_all_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    monkeypatch.setattr(blocks, "LONGEST", 5000)
    stream = io.BytesIO(b'f,y\n1,a\n2,"b\n' + b"3,c\n" * 100_000)
    with pytest.raises(UserError, match=r"t, line \d+: a quote is opened and never closed"):
        list(blocks.read_blocks(stream, "t", ",", layout_of))
    assert stream.tell() < 8000
