"""What is used of PyTorch that is not its public interface.

tests/model/test_torch_internals.py says what is relied on.
"""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

foreach_norm = torch._foreach_norm
"""Euclidean norms of a list of tensors in one call."""


class _Later(ModuleType):
    """Stands for a module of PyTorch until somebody wants more of it than some functions."""

    def __init__(self, name: str, is_package: bool, **functions: Callable[..., Any]) -> None:
        super().__init__(name)
        vars(self).update(functions, _is_package=is_package)

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        imports_below = name == "__path__" and self._is_package
        if name.startswith("__") and not imports_below:  # `inspect` looks at all modules
            raise AttributeError(name)
        if sys.modules.get(own) is self:
            del sys.modules[own]
        return getattr(importlib.import_module(own), name)


def put_compiler_off() -> None:
    """Have `torch.optim` and `torch.autograd.grad` import no compiler, which takes nine tenths of the time of
    `import torch` once more. Whoever compiles gets it as ever.

    Every optimizer imports `torch._dynamo` to keep it out of its methods, and `grad` the algebra of symbolic
    shapes to compare two shapes.
    """
    stand_ins = (
        _Later("torch._dynamo", True, disable=lambda function, *_, **__: function, graph_break=lambda: None),
        _Later("torch.fx.experimental.symbolic_shapes", False, expect_true=bool, sym_eq=operator.eq),
    )
    for module in stand_ins:
        sys.modules.setdefault(module.__name__, module)
