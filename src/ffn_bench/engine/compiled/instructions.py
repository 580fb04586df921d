"""LLVM instructions as functions of numba: addresses, calls by address, the treatment of denormals."""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

INT32 = ir.IntType(32)


@intrinsic
def offset(typing: Any, pointer: Any, count: Any) -> Any:
    """pointer + count: the address of number `count` of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


@intrinsic
def rounded(typing: Any, like: Any, x: Any) -> Any:
    """A float64 as a number of the kind that `like` points to."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], types.float64, like.dtype)

    return like.dtype(like, types.float64), generate


@intrinsic
def is_given(typing: Any, pointer: Any) -> Any:
    """Whether a pointer is an address, and not null."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        null = ir.Constant(arguments[0].type, None)
        return builder.icmp_unsigned("!=", arguments[0], null)

    return types.boolean(pointer), generate


@intrinsic
def call(typing: Any, address: Any, *arguments: Any) -> Any:
    """address(*arguments): compiled code that gives nothing back; integers become int64."""
    kinds = [types.intp if isinstance(a, (types.Integer, types.Boolean)) else a for a in arguments]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address_, packed = values
        packed = [builder.extract_value(packed, k) for k in range(len(kinds))]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in packed])
        builder.call(builder.inttoptr(address_, kind.as_pointer()), packed)
        return context.get_dummy_value()

    return types.none(types.intp, types.StarArgTuple.from_types(kinds)), generate


# --- denormals ------------------------------------------------------------------------------------------
# Numbers below the smallest normal one count as 0 while a kernel runs. Processors take a hundred cycles and
# more for an operation with such a number, and training makes many: the average of a gradient that has become
# 0 halves with every seventh step of Adam, is 1e-38 after 800 steps, and would stay near there for ever.

FLUSH = 1 << 15 | 1 << 6
"""Of x86's control register MXCSR: results are flushed to 0, arguments are taken as 0."""


def _control(builder: Any, name: str, address: Any) -> None:
    """llvm.x86.sse.stmxcsr: memory ← MXCSR; llvm.x86.sse.ldmxcsr: MXCSR ← memory."""
    byte, full = ir.IntType(8).as_pointer(), f"llvm.x86.sse.{name}"
    kind = ir.FunctionType(ir.VoidType(), [byte])
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
