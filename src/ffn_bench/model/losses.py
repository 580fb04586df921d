"""The table of losses: ρ(f, t) of one output f and its target t as plain functions of numbers, one text for
all engines.

A row's loss is the sum over its outputs, f = σ(z) of the logits z. In a classification the target of an
output is 1 for the label's class and 0 for the others. Numbers are as in `activations`. Adding a loss is one
entry of `LOSSES` and one YAML in conf/loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import LOSS_OF_TASK, LossConfig, TrainConfig, default_output
from ffn_bench.errors import UserError
from ffn_bench.model.activations import ACTIVATIONS

Numbers = Any
"""A tensor, an array, or a register."""


@dataclass(frozen=True)
class Loss:
    """ρ and its derivative, of an output f and its target t, and which outputs it is of."""

    value: Callable[[Numbers, Numbers, float], Numbers]
    """ρ(f, t), the third argument is δ; of the logit in place of f with `of_logits`."""
    derivative: Callable[[Numbers, Numbers, float], Numbers]
    """∂ρ/∂f, or with `of_logits` ∂ρ/∂z."""
    outputs: tuple[str, ...]
    """The outputs that it is of in a classification, from `OUTPUTS`."""
    of_logits: bool = False
    """Whether ρ and its derivative are written for sigmoid outputs, of their logits, which is exact where a
    sigmoid is 0 or 1; for softmax outputs an engine has −Σ t ln softmax(z)."""
    keys: tuple[str, ...] = ()
    """Keys of the group `loss` that it takes beside `output` and `class_weight`."""

    @property
    def of_targets(self) -> bool:
        """Whether it is a loss of a regression, too: of outputs that are any numbers."""
        return "identity" in self.outputs


def softplus(z: Numbers) -> Numbers:
    """ln(1 + exp z), of exponentials that cannot overflow."""
    return z.where(z > 0, 0.0) + z.where(z <= 0, -z).exp().log1p()


def cross_entropy(z: Numbers, t: Numbers, delta: float) -> Numbers:
    """−t ln s − (1 − t) ln(1 − s) of s = sigmoid(z), which is ln(1 + exp z) − t z"""
    return softplus(z) - t * z


def cross_entropy_derivative(z: Numbers, t: Numbers, delta: float) -> Numbers:
    """s − t"""
    return z.sigmoid() - t


def squared(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """½ (f − t)²"""
    return (f - t).square() * 0.5


def squared_derivative(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """f − t"""
    return f - t


def absolute(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """|f − t|"""
    return (f - t).abs()


def absolute_derivative(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """The sign of f − t, 0 where they are equal."""
    return (f - t).sign()


def huber(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """½ (f − t)² where |f − t| ≤ δ, beyond it δ (|f − t| − δ/2) (Huber, 1964)."""
    e = (f - t).abs()
    return (e.square() * 0.5).where(e <= delta, (e - 0.5 * delta) * delta)


def huber_derivative(f: Numbers, t: Numbers, delta: float) -> Numbers:
    """f − t, between −δ and δ."""
    e = f - t
    return e.where(e.abs() <= delta, e.sign() * delta)


OUTPUTS = ("identity", "sigmoid", "softmax")
"""Functions from logits to outputs: elementwise ones are `ACTIVATIONS`, too."""

LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(
        cross_entropy,
        cross_entropy_derivative,
        ("softmax", "sigmoid"),
        of_logits=True,
        keys=("label_smoothing",),
    ),
    "squared": Loss(squared, squared_derivative, OUTPUTS),
    "absolute": Loss(absolute, absolute_derivative, OUTPUTS),
    "huber": Loss(huber, huber_derivative, OUTPUTS, keys=("delta",)),
}
"""Losses by name."""


@dataclass(frozen=True)
class Criterion:
    """What a run's loss is, of logits and targets: a loss of `LOSSES` on outputs of `OUTPUTS`."""

    loss: str = "cross_entropy"
    output: str = "softmax"
    smoothing: float = 0.0
    """Label smoothing ε: targets are (1 − ε) times those of the labels, plus ε over the number of classes
    (Szegedy et al., 2016)."""
    delta: float = 1.0
    """Huber's δ."""

    @property
    def is_softmax(self) -> bool:
        """Whether an output depends on all logits of its row."""
        return self.output == "softmax"

    @property
    def is_softmax_cross_entropy(self) -> bool:
        """Whether it is −Σ t ln softmax(z)."""
        return self.is_softmax and LOSSES[self.loss].of_logits

    @property
    def unit(self) -> str:
        """Of a loss; empty where it has none."""
        return "nats" if LOSSES[self.loss].of_logits else ""

    def targets(self, n_classes: int) -> tuple[float, float]:
        """The targets of the label's class and of the others."""
        off = self.smoothing / n_classes
        return 1 - self.smoothing + off, off

    def value(self, f: Numbers, t: Numbers) -> Numbers:
        """ρ(f, t)"""
        return LOSSES[self.loss].value(f, t, self.delta)

    def derivative(self, f: Numbers, t: Numbers) -> Numbers:
        """∂ρ/∂f"""
        return LOSSES[self.loss].derivative(f, t, self.delta)

    def of_logit(self, z: Numbers, t: Numbers) -> Numbers:
        """ρ of one elementwise output, by its logit."""
        f = z if LOSSES[self.loss].of_logits else ACTIVATIONS[self.output].function(z)
        return self.value(f, t)

    def logit_derivative(self, z: Numbers, t: Numbers) -> Numbers:
        """Its derivative by the logit."""
        if LOSSES[self.loss].of_logits:
            return self.derivative(z, t)
        f = ACTIVATIONS[self.output].function(z)
        derivative = self.derivative(f, t)
        return (
            derivative
            if self.output == "identity"
            else derivative * ACTIVATIONS[self.output].derivative(z, f)
        )


CROSS_ENTROPY = Criterion()
"""The lecture's: −ln p at the label, p = softmax(z)."""


def criterion_of(run: TrainConfig) -> Criterion:
    """The loss of a run. Raises `UserError` for names, or keys, that do not go together."""
    own, task = run.loss, run.task
    one_of(own.name, ("auto", *LOSSES), "loss")
    name = LOSS_OF_TASK[task] if own.name == "auto" else own.name
    loss = LOSSES[name]
    outputs = loss.outputs if task == "classification" else ("identity",)
    if task == "regression" and not loss.of_targets:
        regression = [name for name, loss in LOSSES.items() if loss.of_targets]
        what = f"{name} is of classes, and data.task is regression"
        raise UserError("loss", what, f"use one of: {', '.join(regression)}")
    if own.output is not None and own.output not in outputs:
        what = f"{own.output!r} is no output of loss={name}" + (" in a regression" * (task == "regression"))
        raise UserError("loss.output", what, f"use {' or '.join(outputs)}")
    for key in ("label_smoothing", "delta"):
        if key not in loss.keys and getattr(own, key) != getattr(LossConfig(), key):
            takers = [name for name, loss in LOSSES.items() if key in loss.keys]
            raise UserError(f"loss.{key}", f"has no effect with loss={name}", f"use loss={takers[0]}")
    if task == "regression" and own.class_weight != "none":
        raise UserError("loss.class_weight", "is of classes, and data.task is regression", "leave it out")
    return Criterion(name, own.output or default_output(name), own.label_smoothing, own.delta)
