"""Numbers below the smallest normal one count as 0 while a kernel runs.

Processors take about a hundred cycles for an operation with such a number, and a network has many: the
average of a gradient that has become 0 halves at every seventh step of Adam, and after 800 steps is 1e-38
in float32 and stays near there for ever.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ffn_bench.engine.compiled.registers import INT32

FLUSH = 1 << 15 | 1 << 6
"""Of x86's control register MXCSR: results flushed to 0, arguments taken as 0."""


def _control(builder: Any, name: str, address: Any) -> None:
    """llvm.x86.sse.stmxcsr: memory ← MXCSR; llvm.x86.sse.ldmxcsr: MXCSR ← memory."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte])
    full = f"llvm.x86.sse.{name}"
    function = builder.module.globals.get(full) or ir.Function(builder.module, kind, full)
    builder.call(function, [builder.bitcast(address, byte)])


@intrinsic
def flush_denormals(typing: Any) -> Any:
    """Flush from now on; gives the control register as it was. On other processors than x86 it does
    nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not llvm.get_process_triple().startswith("x86_64"):
            return ir.Constant(INT32, 0)
        address = builder.alloca(INT32)
        _control(builder, "stmxcsr", address)
        before = builder.load(address)
        builder.store(builder.or_(before, ir.Constant(INT32, FLUSH)), address)
        _control(builder, "ldmxcsr", address)
        return before

    return types.int32(), generate


@intrinsic
def restore_denormals(typing: Any, before: Any) -> Any:
    """Put the control register back."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if llvm.get_process_triple().startswith("x86_64"):
            address = builder.alloca(INT32)
            builder.store(arguments[0], address)
            _control(builder, "ldmxcsr", address)
        return context.get_dummy_value()

    return types.none(types.int32), generate
