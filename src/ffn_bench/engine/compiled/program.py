"""All machine code of a run: what computes, and the two kernels around it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ffn_bench.engine.compiled import loops, machine_code, products
from ffn_bench.engine.compiled.cache import Cache
from ffn_bench.model.activations import Activation
from ffn_bench.model.losses import Criterion
from ffn_bench.optimizers.rule_forms import Rule

_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_TRAIN = ctypes.CFUNCTYPE(
    _INTEGER,
    *[_POINTER] * 10,
    *[_INTEGER] * 5,
    *[_FLOAT] * 2,
    *[_POINTER] * 6,
    *[_INTEGER] * 6,
    *[_POINTER] * 2,
)
_EVALUATE = ctypes.CFUNCTYPE(_INTEGER, *[_POINTER] * 7, _INTEGER, *[_POINTER] * 4, _INTEGER, *[_POINTER] * 2)


class Program(NamedTuple):
    """Compiled functions. The kernels, called from Python, run without the interpreter's lock."""

    addresses: Mapping[str, int]
    """Of what the kernels call, by the names in `plan.FUNCTIONS`."""
    train: Callable[..., int]
    """`kernels.train`, of addresses in place of arrays."""
    evaluate: Callable[..., int]
    """`kernels.evaluate`."""


def program(
    activation: Activation,
    criterion: Criterion,
    on_off: tuple[float, float] | None,
    rule: Rule,
    n_coefficients: int,
    dtype: str,
    cache: Cache,
) -> Program:
    """The code of a run, compiled now or found in the cache; `on_off` as in `loops.of_loss`. Raises
    `NotCompilableError` for such a rule."""
    of_loops = {
        "function": loops.of_function(activation, dtype),
        "derivative": loops.of_derivative(activation, dtype),
        "loss": loops.of_loss(criterion, on_off, dtype),
        "rule": loops.of_rule(rule, n_coefficients, dtype),
    }
    tiles = products.tiles_for(machine_code.processor().features)
    others = {
        "product": products.of_product(dtype, tiles),
        "transpose": products.of_transpose(dtype),
        "squares": products.of_squares(dtype),
    }
    addresses = {name: machine_code.function("loop", text, cache) for name, text in of_loops.items()}
    addresses |= {name: machine_code.function(name, text, cache) for name, text in others.items()}
    train, evaluate = (machine_code.kernel(name, dtype, cache) for name in machine_code.KERNELS)
    return Program(addresses, _TRAIN(train), _EVALUATE(evaluate))
