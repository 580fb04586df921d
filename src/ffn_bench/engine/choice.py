"""Which engine trains a run, and why it is not the compiled one where it is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffn_bench.configuration.schema import OptimizerConfig, TrainConfig, count_parameters
from ffn_bench.errors import UserError
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.rules import RULES


@dataclass(frozen=True)
class Choice:
    """An engine for a run."""

    engine: str
    """`compiled`, `torch` or `batched`."""
    reason: str = ""
    """Why it is not the compiled engine."""


WIDE = 700_000
"""Parameters from which on the torch engine on two cores is faster than the compiled engine on one.

Milliseconds of a step, batch size 128, compiled and torch: 784-512-256-10 3.5 and 3.7, 784-512-512-10
4.5 and 4.0, 784-700-512-10 7.4 and 5.9.
"""


def choose(run: TrainConfig, widths: Sequence[int] = ()) -> Choice:
    """The engine that `engine=` names, or for `auto` the one that suits a network of these widths.

    Raises `UserError` where a run cannot be trained by the engine it asks for.
    """
    not_compiled = why_not_compiled(run)
    not_batched = why_not_batched(run)
    if run.engine == "compiled" and not_compiled:
        raise UserError("engine", f"compiled cannot train this run: {not_compiled}", "use engine=auto")
    if run.engine == "batched" and not_batched:
        raise UserError("engine", f"batched cannot train this run: {not_batched}", "use engine=auto")
    if run.engine != "auto":
        return Choice(run.engine, f"engine={run.engine}" if run.engine != "compiled" else "")
    parameters = count_parameters(list(widths))
    if not_compiled is None and parameters > WIDE:
        return Choice("torch", f"{parameters:,} parameters are faster on all cores")
    if not_compiled is None:
        return Choice("compiled")
    on_gpu = run.device not in ("auto", "cpu", "mps")
    return Choice("batched" if on_gpu and not_batched is None else "torch", not_compiled)


def group_key(run: TrainConfig) -> tuple[Any, ...]:
    """Runs with equal keys can be trained side by side."""
    model = (tuple(run.model.widths()), run.model.activation)
    loop = (run.batch_size, run.drop_last, run.log_every, run.dtype, run.device)
    return repr(run.data), *model, *loop


def why_not_compiled(run: TrainConfig) -> str | None:
    """Why the compiled engine cannot train a run, or None where it can."""
    if run.device not in ("auto", "cpu"):
        return f"device={run.device}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return why_not_batched(run) or _why_not_compilable(run.optimizer)


def why_not_batched(run: TrainConfig) -> str | None:
    """Why a run's gradient or optimizer is one that only the torch engine has, or None where it is not."""
    if run.gradient != "auto":
        return f"gradient={run.gradient}"
    return registry.reason_not_elementwise(run.optimizer)


def _why_not_compilable(config: OptimizerConfig) -> str | None:
    """Why another package's rule does not compile."""
    if config.name in RULES:
        return None
    from ffn_bench.engine.compiled import loops

    rule = registry.elementwise_rule(config)
    assert rule is not None
    try:
        loops.of_rule(rule, len(rule.coefficients(config.hyperparameters(), np.ones(1))), "float64")
    except loops.NotCompilableError as e:
        return f"{config.name} does not compile: {e}"
    return None
