"""What the kernels do with registers: LLVM instructions as functions of numba.

A tile is a block of sums that stays in registers while a product is computed: ROWS rows of 1 or 2 vectors.
Arrays are plain pointers, and indices count numbers, not bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

from ffn_bench.engine.compiled.registers import INT32, Emitter

ROWS, BLOCKS = 4, 2
"""Of a tile: 8 sums in flight hide the latency of a multiply-add (4 cycles, 2 a cycle)."""


class Tile(types.Type):
    """ROWS × `blocks` vectors. LLVM takes the aggregate apart and keeps each in a register."""

    def __init__(self, dtype: types.Float, blocks: int) -> None:
        self.dtype, self.blocks = dtype, blocks
        super().__init__(f"Tile({dtype},{blocks})")


@register_model(Tile)
class TileModel(PrimitiveModel):
    """A tile in LLVM: an array of vectors."""

    def __init__(self, manager: Any, tile: Tile) -> None:
        vector = Emitter(ir.IRBuilder(), str(tile.dtype)).vector
        super().__init__(manager, tile, ir.ArrayType(vector, ROWS * tile.blocks))


def _rows(builder: ir.IRBuilder, base: Any, stride: Any, row: Any, last: Any) -> Iterator[ir.Value]:
    """base + stride · min(row + r, last): a tile over the edge repeats the last row, and so needs no tail."""
    for r in range(ROWS):
        k = builder.add(row, ir.Constant(row.type, r))
        k = builder.select(builder.icmp_signed("<", k, last), k, last)
        yield builder.add(base, builder.mul(stride, k))


@intrinsic(prefer_literal=True)
def tile_zero(typing: Any, like: Any, blocks: Any) -> Any:
    """A tile of zeros for the numbers that the pointer `like` points to."""
    tile = Tile(like.dtype, blocks.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(like, blocks), generate


@intrinsic
def tile_madd(
    typing: Any, tile: Any, A: Any, base: Any, stride: Any, row: Any, last: Any, V: Any, at: Any
) -> Any:
    """tile[r] ← fma(A[base + r · stride], V[at :], tile[r])"""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, A_, base_, stride_, row_, last_, V_, at_ = arguments
        emit = Emitter(builder, str(tile.dtype))
        vectors = [
            emit.load(V_, builder.add(at_, ir.Constant(at_.type, c * emit.lanes))) for c in range(tile.blocks)
        ]
        for r, index in enumerate(_rows(builder, base_, stride_, row_, last_)):
            x = emit.repeat(builder.load(builder.gep(A_, [index])))
            for c, v in enumerate(vectors):
                i = r * tile.blocks + c
                sums = builder.insert_value(sums, emit.fma(x, v, builder.extract_value(sums, i)), i)
        return sums

    i = types.intp
    return tile(tile, A, i, i, i, i, V, i), generate


def _parts(
    emit: Emitter, blocks: int, rows: Iterator[ir.Value], count: Any
) -> Iterator[tuple[int, Any, Any]]:
    """Number, index and mask of every vector of a tile, whose first `count` columns are wanted."""
    builder = emit.builder
    skips = [ir.Constant(count.type, c * emit.lanes) for c in range(blocks)]
    masks = [emit.first_lanes(builder.sub(count, skip)) for skip in skips]
    for r, index in enumerate(rows):
        for c, (skip, mask) in enumerate(zip(skips, masks, strict=True)):
            yield r * blocks + c, builder.add(index, skip), mask


@intrinsic
def tile_load(
    typing: Any, tile: Any, out: Any, base: Any, stride: Any, row: Any, last: Any, count: Any
) -> Any:
    """The first `count` columns of the rows at `out`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, out_, base_, stride_, row_, last_, count_ = arguments
        emit = Emitter(builder, str(tile.dtype))
        rows = _rows(builder, base_, stride_, row_, last_)
        for i, index, mask in _parts(emit, tile.blocks, rows, count_):
            sums = builder.insert_value(sums, emit.load_masked(out_, index, mask), i)
        return sums

    i = types.intp
    return tile(tile, out, i, i, i, i, i), generate


@intrinsic
def tile_store(
    typing: Any, tile: Any, out: Any, base: Any, stride: Any, row: Any, last: Any, count: Any
) -> Any:
    """The tile's first `count` columns to the rows at `out`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, out_, base_, stride_, row_, last_, count_ = arguments
        emit = Emitter(builder, str(tile.dtype))
        rows = _rows(builder, base_, stride_, row_, last_)
        for i, index, mask in _parts(emit, tile.blocks, rows, count_):
            emit.store_masked(builder.extract_value(sums, i), out_, index, mask)
        return context.get_dummy_value()

    i = types.intp
    return types.none(tile, out, i, i, i, i, i), generate


@intrinsic
def tile_squares(typing: Any, tile: Any, x: Any, at: Any, count: Any) -> Any:
    """tile[r] ← tile[r] + x[at + 8 r :]², r = 0 … 3, in float64, of the first `count` numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, x_, at_, count_ = arguments
        wide, narrow = Emitter(builder, "float64"), Emitter(builder, str(x.dtype), lanes=8)
        for r in range(ROWS):
            skip = ir.Constant(at_.type, r * wide.lanes)
            mask = wide.first_lanes(builder.sub(count_, skip))
            v = narrow.load_masked(x_, builder.add(at_, skip), mask)
            v = v if narrow.bits == wide.bits else builder.fpext(v, wide.vector)
            sums = builder.insert_value(sums, wide.fma(v, v, builder.extract_value(sums, r)), r)
        return sums

    return tile(tile, x, types.intp, types.intp), generate


@intrinsic
def tile_sum(typing: Any, tile: Any) -> Any:
    """The sum of all numbers of a float64 tile of one block: its rows, then its lanes, from first to last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = builder.extract_value(arguments[0], 0)
        for r in range(1, ROWS):
            row = builder.fadd(row, builder.extract_value(arguments[0], r))
        total = builder.extract_element(row, ir.Constant(INT32, 0))
        for lane in range(1, row.type.count):
            total = builder.fadd(total, builder.extract_element(row, ir.Constant(INT32, lane)))
        return total

    return types.float64(tile), generate


@intrinsic
def transpose(
    typing: Any, source: Any, starts: Any, first: Any, column: Any, count: Any, out: Any, to: Any, stride: Any
) -> Any:
    """out[to + c · stride + r] ← source[starts[first + r] + column + c] for a square of lanes × lanes
    numbers, 0 where c ≥ count.

    In log₂(lanes) rounds of shuffles: round h exchanges the off-diagonal quarters of squares of 2h.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_, starts_, first_, column_, count_, out_, to_, stride_ = arguments
        emit = Emitter(builder, str(source.dtype))
        n, i = emit.lanes, to_.type
        mask, rows = emit.first_lanes(count_), []
        for r in range(n):
            start = builder.load(builder.gep(starts_, [builder.add(first_, ir.Constant(i, r))]))
            rows.append(emit.load_masked(source_, builder.add(start, column_), mask))
        half = 1
        while half < n:
            for k in (k for k in range(n) if not k & half):
                low, high = rows[k], rows[k + half]
                upper = [j if not j & half else n + j - half for j in range(n)]
                lower = [j + half if not j & half else n + j for j in range(n)]
                indices = ir.VectorType(INT32, n)
                rows[k] = builder.shuffle_vector(low, high, ir.Constant(indices, upper))
                rows[k + half] = builder.shuffle_vector(low, high, ir.Constant(indices, lower))
            half *= 2
        for c, row in enumerate(rows):
            emit.store(row, out_, builder.add(to_, builder.mul(stride_, ir.Constant(i, c))))
        return context.get_dummy_value()

    i = types.intp
    return types.none(source, starts, i, i, i, out, i, i), generate


@intrinsic
def offset(typing: Any, pointer: Any, count: Any) -> Any:
    """The pointer, `count` numbers further."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


@intrinsic
def rounded(typing: Any, like: Any, x: Any) -> Any:
    """A float64 as a number of the kind that the pointer `like` points to."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], types.float64, like.dtype)

    return like.dtype(like, types.float64), generate


@intrinsic
def call(typing: Any, address: Any, a: Any, b: Any, c: Any, d: Any, n: Any, m: Any) -> Any:
    """The compiled loop at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address_, *values = arguments
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(address_, kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.none(types.intp, a, b, c, d, types.intp, types.intp), generate
