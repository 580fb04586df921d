"""What is not elementwise: products of matrices, transposition, sums of squares.

Each is an LLVM module with one function of its own arguments, written with registers like the loops.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llvmlite import ir

from ffn_bench.engine.compiled.registers import INT32, Emitter, fma
from ffn_bench.engine.compiled.vector_math import Numbers
from ffn_bench.engine.compiled.writer import Index, Writer

# --- products -------------------------------------------------------------------------------------------

Tile = tuple[int, int]
"""A block of sums that stays in registers while a product is computed: so many rows × so many registers."""


def tiles_for(features: str) -> tuple[Tile, ...]:
    """The tiles for a processor, from the widest down to one register.

    As many sums as fit beside a row of V and a number of A: AVX-512 has 32 registers of 64 bytes, AVX2 16 of
    32. Eight or more in flight hide the latency of a multiply-add. The shape changes no sum's order.
    """
    return ((6, 4), (6, 2), (6, 1)) if "+avx512f" in features else ((6, 1),)


@functools.cache
def of_product(dtype: str, tiles: tuple[Tile, ...]) -> str:
    """out[r, :] = Σ_k A[r, k] V[k, :], or += where `add` is not 0, k from first to last.

    A[r, k] is read at r a_row + k a_k, one number at a time; V[k, :] at k v_row and out[r, :] at r o_row,
    whole registers at a time. V's rows have room for them; of out's nothing behind its columns is written.
    """
    arrays = dict.fromkeys(("A", "V", "out"), "numbers")
    integers = ("a_row", "a_k", "v_row", "o_row", "n_rows", "n_columns", "n_k", "add")
    writer = Writer("product", dtype, arrays, integers)
    column: Index = writer.integer(0)
    for rows, blocks in tiles:
        end = writer.minus(writer["n_columns"], writer.emitter.lanes * (blocks - 1))  # where it is full

        def over_rows(c: Index, rows: int = rows, blocks: int = blocks) -> None:
            writer.loop(0, writer["n_rows"], rows, lambda r: _tile(writer, rows, blocks, r, c))

        column = writer.loop(column, end, blocks * writer.emitter.lanes, over_rows)
    return writer.text()


def _tile(writer: Writer, rows: int, blocks: int, row: Index, column: Index) -> None:
    """One tile of a product. Over the edge it repeats the last row, and so needs no tail."""
    emitter = writer.emitter
    last = writer.minus(writer["n_rows"], 1)
    numbers = [writer.smaller(writer.plus(row, r), last) for r in range(rows)]
    columns = [writer.plus(column, c * emitter.lanes) for c in range(blocks)]
    masks = [emitter.first_lanes(writer.minus(writer["n_columns"], c)) for c in columns]
    wanted = emitter.repeat(writer.builder.icmp_signed("!=", writer["add"], writer.integer(0)))
    places = [
        (writer.plus(writer.times(writer["o_row"], r), c), mask)
        for r in numbers
        for c, mask in zip(columns, masks, strict=True)
    ]
    sums = [
        Numbers(emitter, emitter.load_masked(writer["out"], place, writer.builder.and_(mask, wanted)))
        for place, mask in places
    ]
    starts = [writer.times(writer["a_row"], r) for r in numbers]

    def madd(k: Index, sums: Sequence[Numbers]) -> Sequence[Numbers]:
        at, begin = writer.times(k, writer["a_k"]), writer.times(k, writer["v_row"])
        V = [writer.load("V", writer.plus(begin, c)) for c in columns]
        A = [writer.repeated("A", writer.plus(start, at)) for start in starts]
        return [fma(A[i // blocks], V[i % blocks], x) for i, x in enumerate(sums)]

    results = writer.fold(0, writer["n_k"], sums, madd)
    for x, (place, mask) in zip(results, places, strict=True):
        emitter.store_masked(x.value, writer["out"], place, mask)


# --- transposition --------------------------------------------------------------------------------------


@functools.cache
def of_transpose(dtype: str) -> str:
    """out[c, r] = source[starts[r] + c], c < n_columns, in squares of registers, for which `out` has room.

    out[c, r] is at c o_row + r. What lies behind `n_columns` in a square is 0.
    """
    arrays = {"source": "numbers", "starts": "integers", "out": "numbers"}
    writer = Writer("transpose", dtype, arrays, ("n_rows", "n_columns", "o_row"))
    lanes = writer.emitter.lanes

    def over_columns(r: Index) -> None:
        writer.loop(0, writer["n_columns"], lanes, lambda c: _square(writer, r, c))

    writer.loop(0, writer["n_rows"], lanes, over_columns)
    return writer.text()


def _square(writer: Writer, row: Index, column: Index) -> None:
    """A square of registers transposed in log₂(lanes) rounds of shuffles.

    Round h exchanges the off-diagonal quarters of all squares of 2h × 2h.
    """
    emitter, builder, lanes = writer.emitter, writer.builder, writer.emitter.lanes
    mask, rows = emitter.first_lanes(writer.minus(writer["n_columns"], column)), []
    for r in range(lanes):
        start = builder.load(builder.gep(writer["starts"], [writer.plus(row, r)]))
        rows.append(emitter.load_masked(writer["source"], writer.plus(start, column), mask))
    indices = ir.VectorType(INT32, lanes)
    half = 1
    while half < lanes:
        for k in (k for k in range(lanes) if not k & half):
            low, high = rows[k], rows[k + half]
            upper = [j if not j & half else lanes + j - half for j in range(lanes)]
            lower = [j + half if not j & half else lanes + j for j in range(lanes)]
            rows[k] = builder.shuffle_vector(low, high, ir.Constant(indices, upper))
            rows[k + half] = builder.shuffle_vector(low, high, ir.Constant(indices, lower))
        half *= 2
    for c, value in enumerate(rows):
        index = writer.plus(writer.times(writer["o_row"], writer.plus(column, c)), row)
        emitter.store(value, writer["out"], index)


# --- sums of squares ------------------------------------------------------------------------------------

SUMS = 4
"""Registers of float64 in which squares are summed."""


@functools.cache
def of_squares(dtype: str) -> str:
    """total[0] = Σ x², in float64: x[i]² is added in lane i mod 32, then all lanes are, in order."""
    writer = Writer("squares", dtype, {"x": "numbers", "total": "doubles"}, ("n",))
    builder = writer.builder
    wide, narrow = Emitter(builder, "float64"), Emitter(builder, dtype, lanes=8)

    def add(i: Index, sums: Sequence[Numbers]) -> Sequence[Numbers]:
        results = []
        for k, x in enumerate(sums):
            at = writer.plus(i, k * wide.lanes)
            v = narrow.load_masked(writer["x"], at, wide.first_lanes(writer.minus(writer["n"], at)))
            v = Numbers(wide, v if dtype == "float64" else builder.fpext(v, wide.vector))
            results.append(fma(v, v, x))
        return results

    zero = Numbers(wide, wide.constant(0))
    first, *others = writer.fold(0, writer["n"], [zero] * SUMS, add, step=SUMS * wide.lanes)
    for x in others:
        first = first + x
    lanes = [builder.extract_element(first.value, ir.Constant(INT32, k)) for k in range(wide.lanes)]
    total = functools.reduce(builder.fadd, lanes)
    builder.store(total, builder.gep(writer["total"], [writer.integer(0)]))
    return writer.text()
