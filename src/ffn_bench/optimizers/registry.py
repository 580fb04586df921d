"""Optimizers by name: which rule is behind one, if any, and those that other installed packages offer."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any, cast

from ffn_bench.configuration.schema import OptimizerConfig, TorchOptimizerConfig
from ffn_bench.errors import UserError
from ffn_bench.optimizers.rule_forms import AnyRule, Rule
from ffn_bench.optimizers.rules import RULES

if TYPE_CHECKING:
    from torch.optim import Optimizer

LOOK_SEVERAL_TIMES = {
    "lbfgs": "lbfgs looks at the loss several times a step",
    "newton": "newton takes second derivatives of the loss",
}

PLUGINS = "ffn_bench.optimizers"
"""Entry points of this group are optimizers of other installed packages: a `Rule`, or a class of
`torch.optim.Optimizer`; `optimizer=<the entry point's name>` chooses one."""


def plugin(name: str) -> AnyRule | type[Optimizer] | None:
    """The optimizer that an installed package offers under this name, if any.

    Raises `UserError` when the package cannot be imported or offers something else.
    """
    for entry in importlib.metadata.entry_points(group=PLUGINS, name=name):
        try:
            offer = entry.load()
        except Exception as e:
            raise UserError(
                "optimizer", f"{name} ({entry.value}) cannot be imported: {e}", "fix that package"
            ) from e
        if isinstance(offer, AnyRule) or _is_torch_optimizer(offer):
            return cast("AnyRule | type[Optimizer]", offer)
        raise UserError(
            "optimizer",
            f"{name} ({entry.value}) is not an optimizer",
            "provide a Rule or a torch.optim.Optimizer",
        )
    return None


def _is_torch_optimizer(offer: Any) -> bool:
    from torch.optim import Optimizer

    return isinstance(offer, type) and issubclass(offer, Optimizer)


def rule_of(config: OptimizerConfig) -> AnyRule | None:
    """The rule behind an optimizer; None where it has none."""
    if isinstance(config, TorchOptimizerConfig):
        return None
    if config.name in RULES or config.name in LOOK_SEVERAL_TIMES:
        return RULES.get(config.name)
    offered = plugin(config.name)
    return offered if isinstance(offered, AnyRule) else None


def elementwise_rule(config: OptimizerConfig) -> Rule | None:
    """The rule behind an optimizer, in the variant that its hyper-parameters mean, if every number of θ moves
    by itself; None for others."""
    rule = rule_of(config)
    if not isinstance(rule, Rule) or reason_not_elementwise(config):
        return None
    return rule.variant(config.hyperparameters())


def reason_not_elementwise(config: OptimizerConfig) -> str | None:
    """Why an optimizer is not an elementwise rule, or None where it is.

    Raises `UserError` for a rule of another package that can train nothing.
    """
    if reason := LOOK_SEVERAL_TIMES.get(config.name):
        return reason
    rule = rule_of(config)
    if rule is None:
        return f"{config.name} is a class of torch.optim.Optimizer"
    if config.name in RULES:
        return None
    from ffn_bench.optimizers.rule_checks import impure, not_elementwise

    hyper = config.hyperparameters()
    if fault := impure(rule, hyper):
        raise UserError("optimizer", f"{config.name} {fault}", "fix that package")
    if not isinstance(rule, Rule):
        return f"{config.name} is a rule of whole tensors"
    fault = not_elementwise(rule.variant(hyper), hyper)
    return f"{config.name} {fault}" if fault else None


def plugin_defaults(name: str) -> dict[str, Any]:
    """The hyper-parameters of a plugin and their defaults, `lr` apart."""
    offered = plugin(name)
    if isinstance(offered, AnyRule):
        return dict(offered.defaults)
    assert offered is not None
    parameters = list(inspect.signature(offered).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.name != "lr" and p.default is not p.empty}
