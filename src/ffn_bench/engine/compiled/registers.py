"""Vector registers as Python numbers: arithmetic that is run once, and writes machine instructions.

A `Register` stands for a vector of 64 bytes (16 numbers in float32, 8 in float64) that will exist when the
compiled code runs. `a * b + c` on registers computes nothing: each operator appends one LLVM instruction to
the function being written. Plain Python such as an update rule, called once with registers, so becomes the
body of a loop over whole vectors.

Arithmetic is IEEE's, rounded after every operation, without any fast-math flag: what is written is what is
computed, on every processor, and NumPy gives the same bits. A multiply-add that rounds once is asked for by
name (`fma`). Python's numbers take the registers' precision, as in NumPy and PyTorch.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

from llvmlite import ir

BYTES = 64
"""Of one vector: a register of AVX-512, two of AVX2, four of SSE or NEON; also one cache line."""

INT32, INT64 = ir.IntType(32), ir.IntType(64)

Number = int | float


Some = TypeVar("Some", bound="Register")


class Emitter:
    """Where instructions go (LLVM's `builder`), and what a register holds (`dtype`, float32 or float64)."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int | None = None) -> None:
        self.builder = builder
        self.bits = {"float32": 32, "float64": 64}[dtype]
        self.number = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.integer = ir.IntType(self.bits)
        self.lanes = lanes or BYTES * 8 // self.bits
        self.vector = ir.VectorType(self.number, self.lanes)
        self.integers = ir.VectorType(self.integer, self.lanes)
        self.suffix = f"v{self.lanes}f{self.bits}"

    def call(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        """A call of an LLVM intrinsic."""
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(result, [a.type for a in arguments]), name
        )
        return self.builder.call(function, arguments)

    def address(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """The address of a vector: pointer + index."""
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.vector.as_pointer())

    def constant(self, x: Number) -> ir.Constant:
        """x in every lane."""
        return ir.Constant(self.vector, [float(x)] * self.lanes)

    def integer_constant(self, x: int) -> ir.Constant:
        """An integer of a lane's width in every lane."""
        return ir.Constant(self.integers, [x] * self.lanes)

    def repeat(self, number: ir.Value) -> ir.Value:
        """One number, in every lane."""
        undefined = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, first, zeros)

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask: true in lane i where i < count."""
        numbers = ir.Constant(ir.VectorType(count.type, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.repeat(count))

    def load(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """pointer[index : index + lanes]"""
        value = self.builder.load(self.address(pointer, index))
        value.align = self.bits // 8
        return value

    def store(self, value: ir.Value, pointer: ir.Value, index: ir.Value) -> None:
        """pointer[index : index + lanes] = value"""
        self.builder.store(value, self.address(pointer, index)).align = self.bits // 8

    def load_masked(self, pointer: ir.Value, index: ir.Value, mask: ir.Value) -> ir.Value:
        """The same where the mask is true, 0 elsewhere; memory outside the mask is not touched."""
        at, align = self.address(pointer, index), ir.Constant(INT32, self.bits // 8)
        arguments = [at, align, mask, ir.Constant(self.vector, None)]
        return self.call(f"llvm.masked.load.{self.suffix}.p0", self.vector, arguments)

    def store_masked(self, value: ir.Value, pointer: ir.Value, index: ir.Value, mask: ir.Value) -> None:
        """Store the lanes where the mask is true."""
        at, align = self.address(pointer, index), ir.Constant(INT32, self.bits // 8)
        self.call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), [value, at, align, mask])

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a · b + c, rounded once."""
        return self.call(f"llvm.fma.{self.suffix}", self.vector, [a, b, c])


class Mask:
    """The result of a comparison of registers: one truth value for each lane."""

    def __init__(self, emitter: Emitter, value: ir.Value) -> None:
        self.emitter, self.value = emitter, value

    # a ∧ b, a ∨ b, ¬a

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.emitter, self.emitter.builder.and_(self.value, other.value))

    def __or__(self, other: Mask) -> Mask:
        return Mask(self.emitter, self.emitter.builder.or_(self.value, other.value))

    def __invert__(self) -> Mask:
        return Mask(self.emitter, self.emitter.builder.not_(self.value))

    def __bool__(self) -> bool:
        raise TypeError("a branch on computed values cannot be compiled: use where(condition, a, b)")


class Register:
    """A vector of numbers when the code runs: what processors have instructions for, under PyTorch's names.

    `vector_math.Numbers` has exp, log and the rest, too.
    """

    __array_priority__ = 1000.0  # NumPy's numbers leave operators to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, emitter: Emitter, value: ir.Value) -> None:
        self.emitter, self.value = emitter, value

    def _new(self, value: ir.Value) -> Self:
        return type(self)(self.emitter, value)

    def constant(self, x: Number) -> Self:
        """x in every lane, in this register's precision."""
        return self._new(self.emitter.constant(x))

    def _value_of(self, x: Any) -> ir.Value | None:
        if isinstance(x, Register):
            return x.value
        try:
            return self.emitter.constant(float(x))
        except (TypeError, ValueError):
            return None

    def _binary(self, instruction: str, a: Any, b: Any) -> Any:
        values = self._value_of(a), self._value_of(b)
        if values[0] is None or values[1] is None:
            return NotImplemented
        return self._new(getattr(self.emitter.builder, instruction)(*values))

    # a + b, a − b, a · b, a / b, of two registers or a register and a number on either side

    def __add__(self, x: Any) -> Any:
        return self._binary("fadd", self, x)

    def __radd__(self, x: Any) -> Any:
        return self._binary("fadd", x, self)

    def __sub__(self, x: Any) -> Any:
        return self._binary("fsub", self, x)

    def __rsub__(self, x: Any) -> Any:
        return self._binary("fsub", x, self)

    def __mul__(self, x: Any) -> Any:
        return self._binary("fmul", self, x)

    def __rmul__(self, x: Any) -> Any:
        return self._binary("fmul", x, self)

    def __truediv__(self, x: Any) -> Any:
        return self._binary("fdiv", self, x)

    def __rtruediv__(self, x: Any) -> Any:
        return self._binary("fdiv", x, self)

    # xⁿ for n = 2 and n = ½; −x, +x, |x|

    def __pow__(self, n: Any) -> Any:
        if isinstance(n, (int, float)) and n == 2:
            return self * self
        return self.sqrt() if n == 0.5 else NotImplemented

    def __neg__(self) -> Self:
        return self._new(self.emitter.builder.fneg(self.value))

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self.abs()

    def _compare(self, relation: str, x: Any, unordered: bool = False) -> Any:
        value = self._value_of(x)
        if value is None:
            return NotImplemented
        builder = self.emitter.builder
        compare = builder.fcmp_unordered if unordered else builder.fcmp_ordered
        return Mask(self.emitter, compare(relation, self.value, value))

    # a < b, a ≤ b, a > b, a ≥ b, a = b: false where one is NaN; a ≠ b: true there

    def __lt__(self, x: Any) -> Any:
        return self._compare("<", x)

    def __le__(self, x: Any) -> Any:
        return self._compare("<=", x)

    def __gt__(self, x: Any) -> Any:
        return self._compare(">", x)

    def __ge__(self, x: Any) -> Any:
        return self._compare(">=", x)

    def __eq__(self, x: object) -> Any:
        return self._compare("==", x)

    def __ne__(self, x: object) -> Any:
        return self._compare("!=", x, unordered=True)  # true for a NaN

    def __bool__(self) -> bool:
        raise TypeError("a branch on computed values cannot be compiled: use where(condition, a, b)")

    # functions of x, each one instruction or two

    def _intrinsic(self, name: str, *others: Register) -> Self:
        emitter = self.emitter
        values = [self.value, *(x.value for x in others)]
        return self._new(emitter.call(f"llvm.{name}.{emitter.suffix}", emitter.vector, values))

    def abs(self) -> Self:
        """|x|"""
        return self._intrinsic("fabs")

    def sqrt(self) -> Self:
        """√x, correctly rounded."""
        return self._intrinsic("sqrt")

    def copysign(self, sign: Register) -> Self:
        """|x| with the sign of another."""
        return self._intrinsic("copysign", sign)

    def isnan(self) -> Mask:
        """Where x is no number."""
        return self._compare("uno", self)

    def where(self, condition: Mask, other: Register | Number) -> Self:
        """This where the condition is true, the other elsewhere."""
        value = self._value_of(other)
        assert value is not None
        return self._new(self.emitter.builder.select(condition.value, self.value, value))

    def relu(self) -> Self:
        """max(x, 0), NaN where x is."""
        return self.where(~(self <= 0), 0.0)

    def maximum(self, x: Register | Number) -> Self:
        """The larger of two; NaN where one is NaN."""
        return self.where((self > x) | self.isnan(), x)

    def minimum(self, x: Register | Number) -> Self:
        """The smaller of two; NaN where one is NaN."""
        return self.where((self < x) | self.isnan(), x)

    def sign(self) -> Self:
        """−1, 0 or 1; NaN stays."""
        return self.constant(1).where(self > 0, self.constant(-1).where(self < 0, self))

    def square(self) -> Self:
        """x · x"""
        return self * self

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions on registers: `np.sqrt(x)` is `x.sqrt()`, `np.float64(2) * x` is `2 * x`."""
        name = {"add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__"}.get(
            ufunc.__name__, {"absolute": "abs", "negative": "__neg__"}.get(ufunc.__name__, ufunc.__name__)
        )
        first = inputs[0] if isinstance(inputs[0], Register) else self.constant(inputs[0])
        function = getattr(first, name, None)
        return NotImplemented if function is None or options else function(*inputs[1:])


def fma(a: Some, b: Some | Number, c: Some | Number) -> Some:
    """a · b + c, rounded once."""
    emitter = a.emitter
    values = [x.value if isinstance(x, Register) else emitter.constant(x) for x in (a, b, c)]
    return type(a)(emitter, emitter.fma(*values))


def polynomial(x: Some, coefficients: list[float]) -> Some:
    """c₀ + c₁ x + c₂ x² + …, by Horner's scheme."""
    *others, last = coefficients
    value = x.constant(last)
    for c in reversed(others):
        value = fma(value, x, c)
    return value


def float_bits(x: Register) -> ir.Value:
    """The bits of x, as an integer in every lane."""
    return x.emitter.builder.bitcast(x.value, x.emitter.integers)


def from_bits(like: Some, bits: ir.Value) -> Some:
    """The numbers whose bits are given."""
    return type(like)(like.emitter, like.emitter.builder.bitcast(bits, like.emitter.vector))
