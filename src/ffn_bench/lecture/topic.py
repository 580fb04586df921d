"""What a topic is: a claim, and rows that compare computed with expected values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffn_bench.configuration.schema import DataConfig, ModelConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

F64 = torch.float64


@dataclass(frozen=True)
class Row:
    """One comparison: what is computed, what the lecture (or theory) says, what came out, do they agree."""

    what: str
    expected: str
    computed: str
    ok: bool


@dataclass
class Context:
    """The inputs of a topic: the user's network and data, a seed; and where it stores its figures."""

    data: DataConfig
    model: ModelConfig
    seed: int = 0
    draw: bool = False
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Topic:
    """A section of the lecture: its number there, its claim in words, and its rows."""

    name: str
    number: str
    title: str
    claim: str
    rows: Callable[[Context], Iterator[Row]]
    check: Callable[[Context], object] = lambda context: None
    """Raises `UserError` for a network or data that cannot be used, before any topic is shown."""


TOPICS: dict[str, Topic] = {}
"""Every topic by name, in the lecture's order once the modules that define them are imported."""


def topic(
    name: str, number: str, title: str, check: Callable[[Context], object] = lambda context: None
) -> Callable[[Callable[[Context], Iterator[Row]]], Topic]:
    """Register a generator of rows as a topic; its docstring is the claim."""

    def register(rows: Callable[[Context], Iterator[Row]]) -> Topic:
        claim = " ".join((rows.__doc__ or "").split())
        TOPICS[name] = Topic(name, number, title, claim, rows, check)
        return TOPICS[name]

    return register


def compare(what: str, expected: Any, computed: Any, tolerance: float = 1e-12, digits: int = 4) -> Row:
    """A row that holds when no entry of two scalars, lists or tensors differs by more than `tolerance`."""
    a, b = (torch.as_tensor(v, dtype=F64).detach() for v in (expected, computed))
    ok = a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())
    return Row(what, show(expected, digits), show(computed, digits), ok)


def holds(what: str, expected: str, computed: Any, ok: Any) -> Row:
    """A row whose condition was decided by the topic."""
    return Row(what, expected, computed if isinstance(computed, str) else show(computed), bool(ok))


def show(value: Any, digits: int = 4) -> str:
    """A number or a small array as text."""
    if isinstance(value, Tensor):
        value = value.detach().tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(show(v, digits) for v in value) + "]"
    if isinstance(value, float):
        if value != 0 and not 1e-3 <= abs(value) < 1e5:
            return f"{value:.2e}"
        return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"
    return str(value)


def vector(*numbers: float) -> Tensor:
    """A float64 vector that requires a gradient."""
    return torch.tensor(numbers, dtype=F64, requires_grad=True)
