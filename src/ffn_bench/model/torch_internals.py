"""What is used of PyTorch that is not its public interface.

tests/model/test_torch_internals.py says what is relied on.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

foreach_norm = torch._foreach_norm
"""Euclidean norms of a list of tensors in one call."""

COMPILER = "torch._dynamo"


class _CompilerLater(ModuleType):
    """Stands for the front end of `torch.compile` until somebody wants more of it than two functions."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """Keep the compiler out of a function. No compiler is there."""
        return function

    @staticmethod
    def graph_break() -> None:
        """Break a graph that is being traced. None is."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


def put_compiler_off() -> None:
    """Have `torch.optim` not import `torch._dynamo`, which takes two thirds of the time of `import torch`.

    Every optimizer imports it, to keep a compiler out of its methods. Whoever compiles gets it as ever.
    """
    sys.modules.setdefault(COMPILER, _CompilerLater(COMPILER))
