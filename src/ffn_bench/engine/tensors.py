"""Between arrays, of which data and checkpoints are, and the tensors that PyTorch computes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.configuration.schema import DataConfig
from ffn_bench.data.datasets import load
from ffn_bench.data.rows import Array, Data, in_dtype


def on_device(data: Data[Array], device: torch.device | str = "cpu") -> Data[Tensor]:
    """The data as tensors on a device; on the CPU they share the arrays' memory."""
    return data.map(lambda split: split.map(lambda array: torch.from_numpy(array).to(device)))


def load_tensors(config: DataConfig, dtype: str = "float64") -> Data[Tensor]:
    """The data set that `config` names as tensors on the CPU. Raises `UserError` as `datasets.load` does."""
    return on_device(in_dtype(load(config), dtype))


def to_arrays(state: Any) -> Any:
    """A nested state with arrays in place of its tensors; those on the CPU share their memory."""
    if isinstance(state, Tensor):
        return state.detach().cpu().numpy()
    if isinstance(state, dict):
        return {key: to_arrays(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(to_arrays, state))
    return state


def to_tensors(state: Any) -> Any:
    """A nested state with tensors, copies, in place of its arrays."""
    if isinstance(state, np.ndarray):
        return torch.tensor(state)
    if isinstance(state, dict):
        return {key: to_tensors(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(to_tensors, state))
    return state
