"""A trained network as a module of PyTorch's."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ffn_bench.data.rows import Array
from ffn_bench.export.sequential import module_of, state_dict
from ffn_bench.run_folder.trained_network import TrainedNetwork


class Standardisation(nn.Module):
    """(x − mean)/scale of rows `[n, n_features]`, computed in float64, in the network's dtype."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Array, scale: Array, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("mean", torch.from_numpy(mean.copy()))
        self.register_buffer("scale", torch.from_numpy(scale.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """Rows as the network takes them."""
        return ((x.double() - self.mean) / self.scale).to(self.dtype)


class OwnUnit(nn.Module):
    """output · scale + mean of outputs `[n, n_targets]`, in float64: a regression's targets in their unit."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Array, scale: Array) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean.copy()))
        self.register_buffer("scale", torch.from_numpy(scale.copy()))

    def forward(self, outputs: Tensor) -> Tensor:
        """Targets."""
        return outputs.double() * self.scale + self.mean


def module(network: TrainedNetwork) -> nn.Sequential:
    """Standardisation, layers and activations: rows as they are in the data, or their inputs as
    `data.encoding` makes them, to logits, in a regression to targets in their own unit.

    Raises `UserError` for an activation that PyTorch has no module of.
    """
    dtype = getattr(torch, network.config.dtype)
    activation = getattr(nn, module_of(network.config.model.activation))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["standardisation"] = Standardisation(network.fitted.mean, network.fitted.scale, dtype)
    for k, (W, _) in enumerate(network.weights.layers):
        if k:
            layers[str(2 * k - 1)] = activation()
        layers[str(2 * k)] = nn.utils.skip_init(nn.Linear, *W.shape, dtype=dtype)
    if network.fitted.targets:
        layers["own_unit"] = OwnUnit(network.fitted.target_mean, network.fitted.target_scale)
    sequential = nn.Sequential(layers)
    state = {name: torch.from_numpy(array.copy()) for name, array in state_dict(network).items()}
    sequential.load_state_dict({**sequential.state_dict(), **state})
    return sequential
