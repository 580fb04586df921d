"""Every update rule's compiled loop by itself, over the parameters of the small network."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.work import SMALL
from ffn_bench.engine.compiled import loops, machine_code
from ffn_bench.engine.compiled.plan import aligned, rounded_up
from ffn_bench.engine.compiled.registers import BYTES
from ffn_bench.optimizers.rules import RULES, Rule

PARAMETERS = sum((n_in + 1) * n_out for n_in, n_out in SMALL.layers)
CALLS = 2_000
DTYPE = np.dtype(np.float32)

HYPER: dict[str, Any] = {
    "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.01, "lr_decay": 0.0,
    "initial_accumulator_value": 0.1, "rho": 0.9, "alpha": 0.99, "beta": 0.9, "betas": (0.9, 0.999),
    "eps": 1e-8, "centered": False, "amsgrad": False, "momentum_decay": 0.004,
}  # fmt: skip
"""Of all rules."""
CHANGES: tuple[dict[str, Any], ...] = (
    {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"amsgrad": True}, {"centered": True},
    {"centered": True, "momentum": 0.9},
)  # fmt: skip
"""What makes a variant, a function of its own, of some rule."""

REPEAT = """
define void @repeat(i64 %address, i64 %calls, ptr %a, ptr %b, ptr %other_b, ptr %c, ptr %d, i64 %n) {
entry:
  %loop = inttoptr i64 %address to ptr
  br label %again
again:
  %k = phi i64 [ 0, %entry ], [ %next, %again ]
  %bit = trunc i64 %k to i1
  %this_b = select i1 %bit, ptr %other_b, ptr %b
  call void %loop(ptr %a, ptr %this_b, ptr %c, ptr %d, i64 %n, i64 %n)
  %next = add i64 %k, 1
  %more = icmp ult i64 %next, %calls
  br i1 %more, label %again, label %end
end:
  ret void
}
"""
"""Calls a loop many times, so that Python's call of it does not count. There are two gradients, in turn: the
variance of a single one, which a centered rule divides by, would be 0."""


def _variants() -> Iterator[tuple[str, Rule, dict[str, Any]]]:
    """Every update function once: its name, its rule, hyper-parameters that mean it."""
    seen = set()
    for rule in RULES.values():
        for changes in CHANGES:
            hyper = {**HYPER, **changes}
            variant = rule.variant(hyper)
            if variant.update not in seen:
                seen.add(variant.update)
                yield getattr(variant.update, "__name__", "?"), variant, hyper


def _loaded(text: str, name: str) -> machine_code.Function:
    cpu = machine_code.processor()
    return machine_code.Function(machine_code.compiled(text, cpu), name, cpu)


def _timer(rule: Rule, hyper: dict[str, Any], repeat: machine_code.Function) -> Callable[[], float]:
    """A function that gives the microseconds of an update of all parameters, its operands in the cache."""
    columns = rule.coefficients(hyper, np.arange(100.0, 101.0))
    c = aligned(max(1, len(columns)), DTYPE)
    c[:] = [float(np.squeeze(column)) for column in columns] or 0
    loop = _loaded(loops.of_rule(rule, len(columns), DTYPE.name), "loop")
    room = rounded_up(PARAMETERS, BYTES // DTYPE.itemsize)
    θ, g, other_g = (aligned(room, DTYPE) for _ in range(3))
    θ[:], g[:], other_g[:] = np.random.default_rng(0).standard_normal((3, room))
    S = aligned(room * max(1, len(rule.states)), DTYPE)
    kinds = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 5 + [ctypes.c_int64]
    call = ctypes.CFUNCTYPE(None, *kinds)(repeat.address)

    def microseconds(_: object = loop) -> float:  # the code lives as long as this function
        S[:] = 0.1
        start = time.perf_counter()
        call(loop.address, CALLS, *(a.ctypes.data for a in (θ, g, other_g, S, c)), room)
        seconds = time.perf_counter() - start
        assert np.isfinite(θ).all()
        return seconds / CALLS * 1e6

    return microseconds


def times(rounds: int) -> dict[str, list[float]]:
    """Microseconds of every rule's step, in each round the least of five: disturbances only add to it."""
    repeat = _loaded(REPEAT, "repeat")
    timers = {name: _timer(rule, hyper, repeat) for name, rule, hyper in _variants()}
    values: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            values[name].append(min(timer() for _ in range(5)))
    return values
