"""exp, expm1, log, log1p, erf, tanh and sigmoid of registers, from additions, multiplications and bits.

Within 3 units in the last place in both precisions (exp within 1); NaN in, NaN out; ±∞ as in C. Results and
arguments below the smallest normal number (1.2e-38, 2.2e-308) are 0, as for the whole engine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from llvmlite import ir

from ffn_bench.engine.compiled.registers import Register, Some, float_bits, fma, from_bits, polynomial


class Format(NamedTuple):
    """What the functions below need to know of a floating-point format."""

    mantissa: int
    """Bits behind the point."""
    bias: int
    """Of the exponent."""
    lowest: float
    """eˣ is a normal number for x above this, …"""
    highest: float
    """… and finite up to this."""
    ln2_high: float
    """ln 2 in two parts: times an integer this one is exact, …"""
    ln2_low: float
    """… and this is the rest."""
    exp_terms: int
    """Terms of the series of eʳ for |r| ≤ ln 2/2."""
    artanh_terms: int
    """Terms of the series of artanh s for |s| ≤ 3 − 2√2."""


FORMATS = {
    32: Format(23, 127, -87.33654, 88.72283, 0.693359375, -2.12194440e-4, 8, 5),
    64: Format(
        52, 1023, -708.3964185322641, 709.782712893384, 6.93145751953125e-1, 1.42860682030941723212e-6, 15, 12
    ),
}


def _shifted(n: Some, format_: Format) -> tuple[Some, Some]:
    """(rint(n), and a number whose low bits are that integer), for |n| < 2^(mantissa − 2)."""
    magic = 1.5 * 2.0**format_.mantissa  # its last bit counts 1, so that adding it rounds to an integer
    low = n + magic
    return low - magic, low


def _exponent_bits(low: Register, format_: Format) -> ir.Value:
    """The integer in the low bits, moved to where the exponent stands."""
    emitter = low.emitter
    return emitter.builder.shl(float_bits(low), emitter.integer_constant(format_.mantissa))


def _scaled(x: Some, low: Some, format_: Format) -> Some:
    """x · 2ⁿ, n in the low bits of `low`, where x and the product are normal numbers."""
    return from_bits(x, x.emitter.builder.add(float_bits(x), _exponent_bits(low, format_)))


def _reduced(x: Some) -> tuple[Some, Some, Format]:
    """p = eʳ − 1 and n (in low bits) with eˣ = (1 + p) 2ⁿ, |r| ≤ ln 2/2, for x where eˣ is normal."""
    format_ = FORMATS[x.emitter.bits]
    x = x.constant(format_.lowest).where(x < format_.lowest, x)  # in this order a NaN stays one
    x = x.constant(format_.highest).where(x > format_.highest, x)
    n, low = _shifted(x * (1 / math.log(2)), format_)
    r = fma(n, -format_.ln2_low, fma(n, -format_.ln2_high, x))
    series = polynomial(r, [1 / math.factorial(k) for k in range(2, format_.exp_terms)])
    return fma(r * r, series, r), low, format_


def exp(x: Some) -> Some:
    """eˣ"""
    p, low, format_ = _reduced(x)
    value = _scaled(p + 1, low, format_)
    value = x.constant(0).where(x < format_.lowest, value)
    value = x.constant(math.inf).where(x > format_.highest, value)
    return x.where(x.isnan(), value)


def expm1(x: Some) -> Some:
    """eˣ − 1"""
    p, low, format_ = _reduced(x)
    power = _scaled(x.constant(1), low, format_)  # 2ⁿ
    value = fma(power, p, power - 1)
    large = _scaled(p + 1, low, format_)  # where 1 is nothing beside eˣ, 2ⁿ may be too large
    value = large.where(x > 60, value)
    value = x.constant(math.inf).where(x > format_.highest, value)
    return x.where(x.isnan(), value)


def log(x: Some) -> Some:
    """ln x; −∞ for 0, NaN below."""
    emitter, format_ = x.emitter, FORMATS[x.emitter.bits]
    builder = emitter.builder
    bits = float_bits(x)
    # x = m 2ⁿ with √½ ≤ m < √2: the bits of √½ are where the exponent is to change
    root = float_bits(x.constant(math.sqrt(0.5)))
    exponent = builder.ashr(builder.sub(bits, root), emitter.integer_constant(format_.mantissa))
    m = from_bits(x, builder.sub(bits, builder.shl(exponent, emitter.integer_constant(format_.mantissa))))
    magic = x.constant(1.5 * 2.0**format_.mantissa)
    n = from_bits(x, builder.add(float_bits(magic), exponent)) - magic
    s = (m - 1) / (m + 1)  # ln m = 2 artanh s
    z = s * s
    rest = s * z * polynomial(z, [2 / k for k in range(3, 2 * format_.artanh_terms + 1, 2)])
    value = fma(n, format_.ln2_high, fma(n, format_.ln2_low, (s + s) + rest))
    value = value.where(x < math.inf, x)  # ∞ and NaN stay
    smallest = 2.0 ** (1 - format_.bias)
    value = x.constant(-math.inf).where(x < smallest, value)
    return x.constant(math.nan).where(x < 0, value)


def log1p(x: Some) -> Some:
    """ln(1 + x)"""
    y = x + 1
    value = log(y) - ((y - 1) - x) / y  # y's rounding error, to first order
    return value.where((y > 0) & (y < math.inf), log(y))


def sigmoid(x: Some) -> Some:
    """1/(1 + e⁻ˣ)"""
    e = exp(-abs(x))
    return x.constant(1).where(x >= 0, e) / (e + 1)


def tanh(x: Some) -> Some:
    """(1 − e⁻²ˣ)/(1 + e⁻²ˣ)"""
    e = expm1(abs(x) * -2)
    return (-e / (e + 2)).copysign(x)


ERF_SMALL = {
    32: [0.12837916659315377, -0.3761262987767587, 0.11283625725084845, -0.026855399452056693,
         0.005191218377376667, -0.0008034846650040447, 7.933493887095507e-05],
    64: [0.12837916709551256, -0.3761263890318361, 0.11283791670947368, -0.02686617064356505,
         0.005223977609525084, -0.0008548326080920425, 0.00012055297825481696, -1.4924789296136167e-05,
         1.6448032429511477e-06, -1.6212883671780102e-07, 1.3738137723318246e-08, -7.828058976929982e-10],
}  # fmt: skip
"""erf(x)/x − 1 as a polynomial in x², for |x| ≤ 1: least squares at Chebyshev's nodes, in 40 digits."""

ERF_TAIL = {
    32: [0.0018391950219399538, 0.5191145712211396, 1.5891686738884745, -0.5223678135456071,
         10.198237397124052, -7.393351746409262],
    64: [-3.2717577500026186e-06, 0.5643837985543595, 1.1231332210971554, 2.0601425950590224,
         1.883635534245529, 9.970264456832666, -41.47439570489513, 162.35626084795118, -513.4291596036949,
         999.0456660010994, -1157.7124166709903, 751.1289050870561, -213.07903540731922],
}  # fmt: skip
"""(1 − erf x) exp(x²) as a polynomial in 1/(x + 2), for x ≥ 1, weighted by exp(−x²): likewise."""


def erf(x: Some) -> Some:
    """2/√π ∫₀ˣ exp(−t²) dt"""
    bits, size = x.emitter.bits, abs(x)
    small = fma(x, polynomial(x * x, ERF_SMALL[bits]), x)
    tail = polynomial(1 / (size + 2), ERF_TAIL[bits])
    large = (1 - exp(-(x * x)) * tail).copysign(x)
    return small.where(size <= 1, large)


class Numbers(Register):
    """A register with all functions that update rules and activations may use."""

    def exp(self) -> Numbers:
        """eˣ"""
        return exp(self)

    def expm1(self) -> Numbers:
        """eˣ − 1"""
        return expm1(self)

    def log(self) -> Numbers:
        """ln x"""
        return log(self)

    def log1p(self) -> Numbers:
        """ln(1 + x)"""
        return log1p(self)

    def erf(self) -> Numbers:
        """The error function."""
        return erf(self)

    def sigmoid(self) -> Numbers:
        """1/(1 + e⁻ˣ)"""
        return sigmoid(self)

    def tanh(self) -> Numbers:
        """The hyperbolic tangent."""
        return tanh(self)
