"""Functions, activations and update rules, each compiled and compared with NumPy, SciPy or PyTorch."""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from numpy.typing import NDArray

from ffn_bench.engine.compiled import loops, machine_code
from ffn_bench.engine.compiled.cache import Cache
from ffn_bench.engine.compiled.plan import aligned
from ffn_bench.model.activations import ACTIVATIONS, Activation
from ffn_bench.optimizers.rule_forms import Rule
from rule_cases import PYTORCHS, RULE_CASES, RuleCase

Numbers = NDArray[Any]
DTYPES = ["float32", "float64"]

_LOOP = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)


def run_loop(text: str, arrays: list[Numbers], n: int, m: int = 0) -> None:
    """Run a module's loop on up to four arrays."""
    addresses = [array.ctypes.data for array in arrays]
    _LOOP(machine_code.function("loop", text, Cache()))(*(addresses + addresses[:1] * 4)[:4], n, m)


def padded(values: Any, dtype: str) -> Numbers:
    """Values in an array that has room for whole registers."""
    values = np.asarray(values, dtype)
    array = aligned(-(-values.size // 16) * 16, np.dtype(dtype))
    array[: values.size] = values.ravel()
    return array


def computed(function: Callable[[Any], Any], x: Numbers) -> Numbers:
    """function(x), compiled."""
    dtype = str(x.dtype)
    a, b = padded(x, dtype), padded(x, dtype)
    run_loop(loops.of_function(Activation(function, lambda h_bar, h: h), dtype), [a, b], len(a))
    return b[: len(x)]


REFERENCES: dict[str, tuple[Callable[[Any], Any], float, float, float]] = {
    "exp": (np.exp, -88.0, 88.0, 1),
    "expm1": (np.expm1, -88.0, 88.0, 2),
    "log": (np.log, 0.0, 1e6, 2),
    "log1p": (np.log1p, -0.5, 1e6, 3),
    "tanh": (np.tanh, -30.0, 30.0, 3),
    "erf": (scipy.special.erf, -7.0, 7.0, 3),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -80.0, 80.0, 2),
    "sqrt": (np.sqrt, 0.0, 1e9, 0.5),
}
"""Function in higher precision, range, and how many units in the last place it may be off."""


def arguments(low: float, high: float, dtype: str) -> Numbers:
    """Arguments of all magnitudes between two bounds."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-8, math.log10(high), 20_000)
    values = np.concatenate([sizes, -sizes, rng.uniform(low, high, 20_000), np.linspace(0.5, 2, 5_000)])
    return values[(values > low) & (values < high)].astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_functions_are_within_a_few_units_in_the_last_place(name: str, dtype: str) -> None:
    reference, low, high, ulps = REFERENCES[name]
    x = arguments(low, high, dtype)
    wide = np.float64 if dtype == "float32" or name == "erf" else np.longdouble
    want = reference(x.astype(wide))
    normal = np.abs(want) >= np.finfo(dtype).tiny
    got = computed(operator.methodcaller(name), x)
    error = np.abs(got.astype(wide) - want)[normal] / np.spacing(np.abs(want[normal]).astype(dtype))
    assert error.max() <= ulps + 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_at_the_ends(dtype: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([-inf, -1e5, -0.0, 0.0, 1e5, inf, nan], dtype)
    big = np.float64(x[4])
    expected = {
        "exp": [0, 0, 1, 1, inf, inf, nan],
        "expm1": [-1, -1, 0, 0, inf, inf, nan],
        "log": [nan, nan, -inf, -inf, np.log(big), inf, nan],
        "log1p": [nan, nan, 0, 0, np.log1p(big), inf, nan],
        "tanh": [-1, -1, 0, 0, 1, 1, nan],
        "erf": [-1, -1, 0, 0, 1, 1, nan],
        "sigmoid": [0, 0, 0.5, 0.5, 1, 1, nan],
        "sqrt": [nan, nan, 0, 0, np.sqrt(big), inf, nan],
        "abs": [inf, 1e5, 0, 0, 1e5, inf, nan],
        "sign": [-1, -1, 0, 0, 1, 1, nan],
    }
    for name, values in expected.items():
        got = computed(operator.methodcaller(name), x)
        np.testing.assert_allclose(got, np.array(values, dtype), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_and_log_where_the_format_ends(dtype: str) -> None:
    kind = np.finfo(dtype)
    low, high = np.log(np.float64(kind.tiny)), np.log(np.float64(kind.max))
    x = np.array([low * (1 - 1e-6), low * (1 + 1e-6), high * (1 - 1e-6), high * (1 + 1e-6)], dtype)
    got = computed(lambda r: r.exp(), x)
    np.testing.assert_allclose(got[[0, 2]], np.exp(x[[0, 2]].astype(np.longdouble)).astype(dtype), rtol=1e-6)
    assert got[1] == 0  # what is below the smallest normal number counts as 0
    assert np.isinf(got[3])
    ends = np.array([kind.tiny, kind.max], dtype)
    np.testing.assert_allclose(computed(lambda r: r.log(), ends), np.log(ends), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_maximum_and_minimum_keep_a_nan(dtype: str) -> None:
    x = np.array([1, -1, np.nan], dtype)
    np.testing.assert_array_equal(computed(lambda r: r.maximum(0.5), x), np.maximum(x, dtype_of(0.5, dtype)))
    np.testing.assert_array_equal(computed(lambda r: r.minimum(0.5), x), np.minimum(x, dtype_of(0.5, dtype)))
    np.testing.assert_array_equal(computed(lambda r: (r * 0 + 0.5).maximum(r), x), [1, 0.5, np.nan])


def dtype_of(value: float, dtype: str) -> Any:
    return np.dtype(dtype).type(value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorchs(name: str, dtype: str) -> None:
    """σ and g ⊙ σ', compiled and on tensors, against PyTorch's functions and autograd."""
    rng = np.random.default_rng(1)
    h_bar = np.concatenate([rng.standard_normal(5_000) * 4, np.linspace(-30, 30, 1_001), [0.0]]).astype(dtype)
    g = rng.standard_normal(len(h_bar)).astype(dtype)
    tensor = torch.tensor(h_bar, dtype=torch.float64, requires_grad=True)
    h = PYTORCHS[name](tensor)
    (derivative,) = torch.autograd.grad(h.sum(), tensor)
    ε = float(np.finfo(dtype).eps)
    tolerance: dict[str, Any] = {"rtol": 20 * ε, "atol": 8 * ε}
    activation = ACTIVATIONS[name]
    got = computed(activation.function, h_bar)
    np.testing.assert_allclose(got, h.detach().numpy(), **tolerance)
    arrays = [padded(v, dtype) for v in (g, h_bar, got)]
    run_loop(loops.of_derivative(activation, dtype), arrays, len(arrays[0]))
    np.testing.assert_allclose(arrays[0][: len(g)], g * derivative.numpy(), **tolerance)
    on_tensor = activation.derivative(tensor.detach(), activation.function(tensor.detach()))
    np.testing.assert_allclose(on_tensor, derivative, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_a_nan(name: str) -> None:
    assert np.isnan(computed(ACTIVATIONS[name].function, np.full(1, np.nan, np.float32)))[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", RULE_CASES, ids=str)
def test_rules_give_the_bits_that_numpy_gives(case: RuleCase, dtype: str) -> None:
    """With the same gradients, 50 steps of every rule and variant, bit for bit."""
    rule, hyper = case.rule, case.hyper
    rng, P = np.random.default_rng(2), 100
    t = np.arange(1.0, 51)
    columns = rule.coefficients(hyper, t)
    table = np.stack([np.broadcast_to(c, t.shape) for c in columns], 1).astype(dtype)
    text = loops.of_rule(rule, len(columns), dtype)
    θ = padded(rng.standard_normal(P), dtype)
    S = np.zeros((len(rule.states), len(θ)), dtype)
    for row, first in zip(S, rule.first(hyper) if rule.first else (), strict=False):
        row[:] = first
    expected, states = θ.copy(), tuple(S.copy())
    for c in table:
        g = padded(rng.standard_normal(P) * 10.0 ** rng.uniform(-4, 1, P), dtype)
        with np.errstate(all="ignore"):
            expected, states = rule.update(g, expected, states, tuple(c))
        run_loop(text, [θ, g, S, padded(c, dtype)], len(θ), len(θ))
        np.testing.assert_array_equal(θ[:P], expected[:P])
    for row, state in zip(S, states, strict=True):
        np.testing.assert_array_equal(row[:P], state[:P])


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (lambda g, θ, state, c: (θ - c[0] * g / g.norm(), state), "norm"),
        (lambda g, θ, state, c: (θ - c[0] * torch.sign(g), state), "sign"),
        (lambda g, θ, state, c: (θ - c[0] if g > 0 else θ, state), "where"),
        (lambda g, θ, state, c: (θ - math.sqrt(g), state), "real number"),
        (lambda g, θ, state, c: (θ, (g,)), "argument"),
    ],
    ids=["norm", "torch", "branch", "math", "states"],
)
def test_a_rule_that_is_not_elementwise_arithmetic_is_refused(update: Any, reason: str) -> None:
    rule = Rule(update, lambda h, t: (h["lr"],))
    with pytest.raises(loops.NotCompilableError, match=reason):
        loops.of_rule(rule, 1, "float32")


def test_rules_may_use_numpys_functions() -> None:
    rule = Rule(
        lambda g, θ, state, c: (θ - c[0] * np.sign(g) * np.float64(2) * np.sqrt(abs(g)), state),
        lambda h, t: (h["lr"],),
    )
    θ, g = padded([1.0, 2.0], "float64"), padded([-4.0, 9.0], "float64")
    run_loop(loops.of_rule(rule, 1, "float64"), [θ, g, θ.copy(), padded([0.5], "float64")], len(θ), len(θ))
    np.testing.assert_array_equal(θ[:2], [3.0, -1.0])
