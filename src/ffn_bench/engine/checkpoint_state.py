"""Whether a state, such as a checkpoint's, is one that a run could have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

PROGRESS = ("step", "epoch", "train_seconds")
"""How far its run was when a state was taken."""


def check_progress(state: dict[str, Any], steps: int, steps_per_epoch: int) -> None:
    """Raise `ValueError` unless a state is of a step that a run of so any_length steps has."""
    step, epoch, seconds = (state[key] for key in PROGRESS)
    if type(step) is not int or not 0 <= step <= steps:
        raise ValueError(f"its step is {_shown(step)}, of {steps}")
    if type(epoch) is not int or epoch != -(-step // steps_per_epoch):
        raise ValueError(f"its epoch is {_shown(epoch)} at step {step}")
    if type(seconds) is not float or not 0 <= seconds < math.inf:
        raise ValueError(f"its train_seconds are {_shown(seconds)}")


def check(state: Any, like: Any, where: str = "state") -> None:
    """Raise `ValueError`, saying where, unless `state` has the keys, types, shapes and dtypes of `like`.

    Lists may have any length where `like` has one entry, which stands for all. A function in `like` says
    whether the value is allowed.
    """
    if callable(like):
        if not like(state):
            raise ValueError(f"{where} is {_shown(state)}")
    elif isinstance(like, np.ndarray):
        same = isinstance(state, np.ndarray) and (state.dtype, state.shape) == (like.dtype, like.shape)
        if not same:
            raise ValueError(f"{where} is {_shown(state)}, not {_shown(like)}")
    elif isinstance(like, dict):
        if not isinstance(state, dict) or state.keys() != like.keys():
            raise ValueError(f"{where} is {_shown(state)}, not {_shown(like)}")
        for key, value in like.items():
            check(state[key], value, f"{where}.{key}")
    elif isinstance(like, (list, tuple)):
        any_length = len(like) == 1
        if type(state) is not type(like) or not (any_length or len(state) == len(like)):
            raise ValueError(f"{where} is {_shown(state)}, not {_shown(like)}")
        for k, value in enumerate(state):
            check(value, like[0 if any_length else k], f"{where}[{k}]")
    elif type(state) is not type(like) or state != like:
        raise ValueError(f"{where} is {_shown(state)}, not {_shown(like)}")


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(str(key)[:20] for key in [*value][:6]) + "}"
    return repr(value)[:60]
