"""Writing a function of machine code, with loops over registers, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ffn_bench.engine.compiled.registers import INT64, Emitter
from ffn_bench.engine.compiled.vector_math import Numbers

Index = Any
"""An integer of 64 bits when the code runs."""

POINTERS = {
    "numbers": None,  # of the function's own kind
    "integers": INT64.as_pointer(),
    "doubles": ir.DoubleType().as_pointer(),
}


class Writer:
    """An LLVM module with one function, to whose body instructions are being appended.

    `arrays` says of which kind each array argument is: `numbers` (of `dtype`), `integers` or `doubles`; no
    two overlap. Integer arguments follow. `writer["name"]` is an argument's value.
    """

    def __init__(self, name: str, dtype: str, arrays: dict[str, str], integers: Sequence[str]) -> None:
        self.module = ir.Module(name)
        number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        pointers = [POINTERS[kind] or number.as_pointer() for kind in arrays.values()]
        kind = ir.FunctionType(ir.VoidType(), [*pointers, *[INT64] * len(integers)])
        function = ir.Function(self.module, kind, name)
        self._arguments = dict(zip([*arrays, *integers], function.args, strict=True))
        for array in arrays:
            self[array].add_attribute("noalias")
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.emitter = Emitter(self.builder, dtype)

    def __getitem__(self, name: str) -> ir.Value:
        return self._arguments[name]

    def text(self) -> str:
        """The finished module."""
        self.builder.ret_void()
        return str(self.module)

    # --- memory ---------------------------------------------------------------------------------------------

    def load(self, array: str, index: Index) -> Numbers:
        """array[index : index + lanes]"""
        return Numbers(self.emitter, self.emitter.load(self[array], index))

    def store(self, value: Numbers, array: str, index: Index) -> None:
        """array[index : index + lanes] = value"""
        self.emitter.store(value.value, self[array], index)

    def repeated(self, array: str, index: Index) -> Numbers:
        """array[index] in every lane."""
        number = self.builder.load(self.builder.gep(self[array], [index]))
        return Numbers(self.emitter, self.emitter.repeat(number))

    def number(self, index: Index) -> Numbers:
        """An integer as a number in every lane."""
        number = self.builder.sitofp(index, self.emitter.number)
        return Numbers(self.emitter, self.emitter.repeat(number))

    # --- integers -------------------------------------------------------------------------------------------

    def integer(self, value: int) -> Index:
        """A constant."""
        return ir.Constant(INT64, value)

    def plus(self, a: Index, b: Index | int) -> Index:
        """a + b"""
        return self.builder.add(a, self.integer(b) if isinstance(b, int) else b)

    def minus(self, a: Index, b: Index | int) -> Index:
        """a − b"""
        return self.builder.sub(a, self.integer(b) if isinstance(b, int) else b)

    def times(self, a: Index, b: Index | int) -> Index:
        """a · b"""
        return self.builder.mul(a, self.integer(b) if isinstance(b, int) else b)

    def smaller(self, a: Index, b: Index) -> Index:
        """min(a, b)"""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    # --- loops ----------------------------------------------------------------------------------------------

    def loop(self, start: Index | int, end: Index, step: int, body: Callable[[Index], None]) -> Index:
        """`for i in range(start, end, step): body(i)`; gives the first i that was not in the range."""

        def folded(i: Index, carried: Sequence[Numbers]) -> Sequence[Numbers]:
            body(i)
            return ()

        return self._fold(start, end, step, (), folded)[0]

    def fold(
        self, start: Index | int, end: Index, carried: Sequence[Numbers],
        body: Callable[[Index, Sequence[Numbers]], Sequence[Numbers]], step: int = 1,
    ) -> Sequence[Numbers]:  # fmt: skip
        """`for i in range(start, end, step): carried = body(i, carried)`; gives the last `carried`.

        What is carried stays in registers.
        """
        return self._fold(start, end, step, carried, body)[1]

    def _fold(
        self, start: Index | int, end: Index, step: int, carried: Sequence[Numbers],
        body: Callable[[Index, Sequence[Numbers]], Sequence[Numbers]],
    ) -> tuple[Index, Sequence[Numbers]]:  # fmt: skip
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT64)
        i.add_incoming(self.integer(start) if isinstance(start, int) else start, before)
        variables = [builder.phi(x.value.type) for x in carried]
        emitters = [x.emitter for x in carried]
        for variable, x in zip(variables, carried, strict=True):
            variable.add_incoming(x.value, before)
        builder.cbranch(builder.icmp_signed("<", i, end), inside, after)
        builder.position_at_end(inside)
        results = body(i, [Numbers(e, v) for e, v in zip(emitters, variables, strict=True)])
        i.add_incoming(self.plus(i, step), builder.block)
        for variable, x in zip(variables, results, strict=True):
            variable.add_incoming(x.value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return i, [Numbers(e, v) for e, v in zip(emitters, variables, strict=True)]
