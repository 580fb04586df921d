"""Optimizers of the torch engine: `torch.optim`'s, fused where PyTorch offers it, rules in the form of one,
Newton's method, and those of other packages."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ffn_bench.configuration.parsing import fitted
from ffn_bench.configuration.schema import OptimizerConfig, TorchOptimizerConfig
from ffn_bench.configuration.validation import is_ours
from ffn_bench.errors import UserError, nearest
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.newton import Newton
from ffn_bench.optimizers.rule_forms import AnyRule
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer
from ffn_bench.optimizers.rules import RULES

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "nesterov": torch.optim.SGD,
    "gd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "radam": torch.optim.RAdam,
    "lbfgs": torch.optim.LBFGS,
    "newton": Newton,
}
"""The class behind a YAML of conf/optimizer; the lecture's own are in `RULES`, `torch` names any other."""


def build_optimizer(config: OptimizerConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over `parameters`.

    Raises `UserError` for an unknown name and for hyper-parameters the optimizer refuses.
    """
    arguments = config.hyperparameters()
    parameters = list(parameters)
    kind = _find(config)
    if isinstance(kind, AnyRule):
        return RuleOptimizer(parameters, kind, **arguments)
    accepted = inspect.signature(kind).parameters
    for key in arguments:
        if key not in accepted:
            known = [name for name in accepted if name not in ("params", "lr")]
            raise UserError(
                f"optimizer.options.{key}",
                f"{kind.__name__} has no such argument{nearest(key, known)}",
                f"it takes: {', '.join(known)}",
            )
        if isinstance(config, TorchOptimizerConfig) and key != "lr":
            fitted(arguments[key], get_type_hints(kind.__init__).get(key, Any), f"optimizer.options.{key}")
    if "fused" in accepted and not {"fused", "foreach", "differentiable", "capturable"} & arguments.keys():
        # The fused kernels have no differentiable mode and Adagrad's no GPU support; there PyTorch chooses.
        on_cpu = all(p.device.type == "cpu" for p in parameters)
        arguments["fused"] = True if on_cpu or kind is not torch.optim.Adagrad else None
    if kind is torch.optim.NAdam and any(p.dtype == torch.float64 for p in parameters):
        # PyTorch would keep the product of the μ_t in float32.
        return RuleOptimizer(parameters, RULES["nadam"], **arguments)
    try:
        return kind(parameters, **arguments)
    except (ValueError, TypeError, IndexError) as e:
        raise UserError("optimizer", f"{kind.__name__}: {e}", "change that setting") from e


def _find(config: OptimizerConfig) -> AnyRule | type[torch.optim.Optimizer]:
    """The rule or class that `config` names."""
    if isinstance(config, TorchOptimizerConfig):
        known = {
            name: kind
            for name, kind in vars(torch.optim).items()
            if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"
        }
        if config.name not in known:
            raise UserError(
                "optimizer.name",
                f"torch.optim has no {config.name!r}{nearest(config.name, known)}",
                f"use one of: {', '.join(sorted(known))}",
            )
        return known[config.name]
    if config.name in OPTIMIZERS:
        return OPTIMIZERS[config.name]
    if config.name in RULES:
        return RULES[config.name]
    if offered := registry.plugin(config.name):
        return offered
    names = (*OPTIMIZERS, *RULES)
    raise UserError(
        "optimizer.name", f"{config.name!r} is not known{nearest(config.name, names)}", "use another"
    )


def check_optimizer(config: OptimizerConfig) -> None:
    """Build the optimizer over a stand-in weight and let it step once, so that a bad setting is found early.

    Raises `UserError`.
    """
    registry.reason_not_elementwise(config)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer(config, [weight])

    def closure() -> Any:
        loss = weight.square().sum()
        if not isinstance(optimizer, Newton):
            optimizer.zero_grad()
            loss.backward()
        return loss

    try:
        closure()  # some optimizers call it, others take the current gradient
        optimizer.step(closure)
    except Exception as e:
        if is_ours(config) and not isinstance(e, (RuntimeError, ValueError, TypeError)):
            raise
        raise UserError(
            "optimizer", f"{type(optimizer).__name__} cannot train this network: {e}", "use another optimizer"
        ) from e


def state_after(optimizer: torch.optim.Optimizer, step: int) -> Any:
    """What an optimizer's `state_dict()["state"]` must be like after so many steps, for `checkpoints.check`.

    Determined by a step on a copy; a checkpoint has arrays in place of its tensors. The state of classes of
    other packages is not checked.
    """
    kind = type(optimizer)
    if step == 0 or kind is Newton:
        return optimizer.state_dict()["state"]
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    if kind is torch.optim.LBFGS:
        return lambda state: isinstance(state, dict) and _is_lbfgs_state(state, count)
    if kind is not RuleOptimizer and not kind.__module__.startswith("torch.optim."):
        return lambda state: isinstance(state, dict)
    trial = copy.deepcopy(optimizer)
    vars(trial).update({key: value for key, value in vars(optimizer).items() if key not in vars(trial)})
    for group in trial.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, 1e-3)
    with torch.no_grad():
        inspect.unwrap(kind.step)(trial)

    def at_step(value: Any) -> bool:
        plain = (isinstance(value, np.ndarray) and value.shape == ()) or type(value) is int
        return plain and float(value) == step

    def like(key: str, value: Any) -> Any:
        if key in ("step", "t"):
            return at_step
        return _is_number if type(value) in (int, float) else value

    state = trial.state_dict()["state"]
    return {k: {key: like(key, value) for key, value in values.items()} for k, values in state.items()}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _is_lbfgs_state(state: dict[Any, Any], count: int) -> bool:
    """L-BFGS keeps numbers, flat vectors, and lists of both, all of them below its first parameter."""

    def fits(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(fits, value))
        if isinstance(value, np.ndarray):
            return value.dtype.kind == "f" and value.shape in ((), (1,), (count,))
        return value is None or _is_number(value)

    return all(isinstance(values, dict) and all(map(fits, values.values())) for values in state.values())
