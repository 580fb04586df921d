"""Which engine trains a run, and why it is not the compiled one where it is not."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffn_bench.configuration.schema import OptimizerConfig, TrainConfig, count_parameters
from ffn_bench.errors import UserError, first_line, is_memory_error
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
    if run.engine == "torch":
        return Choice("torch", "engine=torch")
    not_batched = why_not_batched(run)
    if run.engine == "batched":
        if not_batched:
            raise UserError("engine", f"batched cannot train this run: {not_batched}", "use engine=auto")
        return Choice("batched", "engine=batched")
    not_compiled = why_not_compiled(run)
    if run.engine == "compiled":
        if not_compiled:
            raise UserError("engine", f"compiled cannot train this run: {not_compiled}", "use engine=auto")
        return Choice("compiled")
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
    loop = (run.batch_size, run.drop_last, run.log_every, run.dtype, run.device, repr(run.loss))
    return repr(run.data), *model, *loop


def why_not_compiled(run: TrainConfig) -> str | None:
    """Why the compiled engine cannot train a run, or None where it can."""
    if run.device not in ("auto", "cpu"):
        return f"device={run.device}"
    return why_not_batched(run) or _why_no_compiler(run.dtype) or _why_not_compilable(run.optimizer)


def _why_no_compiler(dtype: str) -> str | None:
    """Why nothing can be compiled here, or None where it can, or where what numba would do is done."""
    for package in ("llvmlite", "numba"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return _why_not_importable(dtype)


@functools.cache
def _why_not_importable(dtype: str) -> str | None:
    try:
        from ffn_bench.engine.compiled import machine_code
        from ffn_bench.engine.compiled.cache import Cache

        if not machine_code.has_kernels(dtype, Cache()):
            import numba  # noqa: F401
    except Exception as error:  # such as an ImportError for a NumPy that it does not know
        if is_memory_error(error):
            raise
        return f"numba cannot be imported: {first_line(str(error) or type(error).__name__)}"
    return None


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
