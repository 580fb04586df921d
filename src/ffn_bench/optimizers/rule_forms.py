"""What an update rule is: a `Rule`, elementwise; or another package's `TensorRule`, on whole tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ffn_bench.optimizers.elementwise import Numbers

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Hyper = Mapping[str, Any]
Row = tuple[Numbers, ...]
"""States, or coefficients, in their order."""
Step = tuple[Numbers, Row]
Update = Callable[[Numbers, Numbers, Row, Row], Step]
Coefficients = Callable[[Hyper, Array], Row]

State = dict[str, "Tensor"]
TensorUpdate = Callable[["Tensor", State, "Tensor", Hyper, int], tuple["Tensor", State]]
Init = Callable[["Tensor", Hyper], State]
Scope = Literal["element", "tensor"] | None


def zeros(*names: str) -> Init:
    """An `init` whose named states are 0, of θ's shape."""
    return lambda θ, hyper: {name: θ.new_zeros(θ.shape) for name in names}


class AnyRule:
    """An update rule of either kind, by the number of arguments of its update: a `Rule` of four, or a
    `TensorRule` of five. This is what plug-ins know as `ffn_bench.rules.Rule`."""

    update: Callable[..., Any]
    defaults: Mapping[str, Any]

    @property
    def scope(self) -> Scope:
        """`TensorRule.scope`; a rule of numbers is elementwise by what it is."""
        return "element"

    @overload
    def __new__(
        cls,
        update: TensorUpdate,
        init: Init = ...,
        defaults: Mapping[str, Any] = ...,
        scope: Scope = ...,
    ) -> TensorRule: ...
    @overload
    def __new__(
        cls,
        update: Update,
        coefficients: Coefficients,
        states: tuple[str, ...] = ...,
        first: Callable[[Hyper], Row] | None = ...,
        defaults: Mapping[str, Any] = ...,
    ) -> Rule: ...
    def __new__(cls, *arguments: Any, **named: Any) -> AnyRule:
        """An instance of the class that fits; its own `__init__` gets the same arguments."""
        if cls is not AnyRule:
            return object.__new__(cls)
        update = arguments[0] if arguments else named["update"]
        return object.__new__(Rule if len(inspect.signature(update).parameters) == 4 else TensorRule)


@dataclass(frozen=True)
class Rule(AnyRule):
    """An update rule in two parts, elementwise."""

    update: Update
    """`update(g, θ, state, c) → (θ, state)`: all of one shape, or broadcasting; nothing changes in place."""
    coefficients: Coefficients
    """`coefficients(hyper, t) → c`: t is float64 of any shape, the hyper-parameters are numbers or float64
    arrays that broadcast with t, as `hyper["lr"]` with a schedule; so is every entry of c."""
    states: tuple[str, ...] = ()
    """The names of the states, in the order in which `update` takes them."""
    first: Callable[[Hyper], Row] | None = None
    """What the states begin as; None: as zeros."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters, `lr` apart."""
    variants: Callable[[Hyper], Rule] | None = None
    """Which rule these hyper-parameters mean, where it depends on them."""

    def variant(self, hyper: Hyper) -> Rule:
        """The rule that these hyper-parameters mean: `RULES["adam"]` with amsgrad is a rule of its own."""
        return self.variants(hyper) if self.variants else self


@dataclass(frozen=True)
class TensorRule(AnyRule):
    """An update rule as one function of tensors: `update(g, state, θ, hyper, t) → (θ, state)`.

    Gradient `g` and parameters `θ` have one shape, the state is a dict of tensors that begins as
    `init(θ, hyper)`, the hyper-parameters are numbers, t is the number of the step, from 1. Nothing changes
    in place, nothing is remembered outside the state, nothing is drawn at random; `rule_checks.impure` tries
    that. It may look at its whole tensor (a norm, a mean), so the torch engine trains it, run by run.
    """

    update: TensorUpdate
    init: Init = field(default_factory=zeros)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters, `lr` apart."""
    scope: Scope = None
    """Without effect, and taken from older plug-ins: what a number of the new θ was said to depend on."""
