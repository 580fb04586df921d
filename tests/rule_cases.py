"""Update rules with hyper-parameters, of every variant, and PyTorch's activations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from cases import parsed
from ffn_bench.optimizers.rule_forms import Rule
from ffn_bench.optimizers.rules import RULES

PYTORCHS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""Activations as PyTorch has them, to compare with. Every name of `ACTIVATIONS` needs one."""

DECAY = {"weight_decay": 0.1}
OTHER_VALUES: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"momentum": 0.5, "dampening": 0.3}, DECAY],
    "momentum": [{"momentum": 0.99, **DECAY}],
    "nesterov": [{"momentum": 0.5, **DECAY}],
    "adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, **DECAY}],
    "adadelta": [{"rho": 0.5, "eps": 1e-2, **DECAY}],
    "rmsprop": [
        {"momentum": 0.9, "lr": 1e-3},
        {"centered": True, "eps": 1e-2},
        {"centered": True, "eps": 1e-2, "momentum": 0.9, "lr": 1e-3},
    ],
    "adam": [{"betas": (0.5, 0.9), "eps": 1e-2, **DECAY}, {"amsgrad": True}],
    "adamw": [{"betas": (0.5, 0.9), "weight_decay": 0.5}, {"amsgrad": True}],
    "nadam": [{"betas": (0.5, 0.9), "momentum_decay": 0.1, **DECAY}],
    "adamax": [{"betas": (0.8, 0.99), **DECAY}],
    "radam": [{"betas": (0.5, 0.9), **DECAY}, {"betas": (0.9, 0.7)}],
}
"""What the values of the YAML are changed to."""


@dataclass(frozen=True)
class RuleCase:
    """A rule by its name, and what of its YAML's values is changed."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.changes)])

    @functools.cached_property
    def hyper(self) -> dict[str, Any]:
        return {**_values(self.name), **dict(self.changes)}

    @property
    def rule(self) -> Rule:
        return RULES[self.name].variant(self.hyper)


@functools.cache
def _values(name: str) -> dict[str, Any]:
    return parsed(f"optimizer={name}", "lr=0.003").optimizer.hyperparameters()


RULE_CASES = [
    RuleCase(name, tuple(changes.items())) for name in RULES for changes in ({}, *OTHER_VALUES.get(name, []))
]
