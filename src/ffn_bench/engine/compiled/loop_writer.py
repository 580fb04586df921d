"""Writing a function with a loop over whole registers, as an LLVM module."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ffn_bench.engine.compiled.registers import INT64, Emitter
from ffn_bench.engine.compiled.vector_math import Numbers


class LoopWriter:
    """A module with the function `loop`, to whose body instructions are being appended."""

    def __init__(self, dtype: str) -> None:
        self.module = ir.Module("loop")
        pointer = (ir.FloatType() if dtype == "float32" else ir.DoubleType()).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 4 + [INT64] * 2)
        function = ir.Function(self.module, kind, "loop")
        *self.arrays, self.n, self.m = function.args
        for array in self.arrays:
            array.add_attribute("noalias")
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.emitter = Emitter(self.builder, dtype)

    def load(self, array: int, index: ir.Value) -> Numbers:
        """A register from one of the four arrays."""
        return Numbers(self.emitter, self.emitter.load(self.arrays[array], index))

    def store(self, value: Numbers, array: int, index: ir.Value) -> None:
        """A register to one of the four arrays."""
        self.emitter.store(value.value, self.arrays[array], index)

    def coefficient(self, array: int, k: int) -> Numbers:
        """Number k of an array, in every lane."""
        address = self.builder.gep(self.arrays[array], [ir.Constant(INT64, k)])
        return Numbers(self.emitter, self.emitter.repeat(self.builder.load(address)))

    def fold(
        self,
        start: ir.Value,
        end: ir.Value,
        step: int,
        carried: Sequence[Numbers],
        body: Callable[[ir.Value, Sequence[Numbers]], Sequence[Numbers]],
    ) -> Sequence[Numbers]:
        """`for i in range(start, end, step): carried = body(i, carried)`; gives the last `carried`."""
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT64)
        i.add_incoming(start, before)
        phis = [builder.phi(x.value.type) for x in carried]
        for phi, x in zip(phis, carried, strict=True):
            phi.add_incoming(x.value, before)
        builder.cbranch(builder.icmp_signed("<", i, end), inside, after)
        builder.position_at_end(inside)
        results = body(i, [Numbers(self.emitter, phi) for phi in phis])
        i.add_incoming(builder.add(i, ir.Constant(INT64, step)), builder.block)
        for phi, x in zip(phis, results, strict=True):
            phi.add_incoming(x.value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return [Numbers(self.emitter, phi) for phi in phis]

    def each(self, body: Callable[[ir.Value], None]) -> str:
        """A loop over the n numbers of the arrays, register by register; gives the finished module's text."""

        def step(i: ir.Value, carried: Sequence[Numbers]) -> Sequence[Numbers]:
            body(i)
            return ()

        self.fold(ir.Constant(INT64, 0), self.n, self.emitter.lanes, (), step)
        self.builder.ret_void()
        return str(self.module)
