"""A trained network as weights for a plain `nn.Sequential` of PyTorch's, and the lines that load them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence

import numpy as np

from ffn_bench.data.rows import Array
from ffn_bench.errors import UserError
from ffn_bench.run_folder.trained_network import TrainedNetwork

MODULES = {
    name.lower(): name
    for name in (
        "Identity", "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Softplus", "Tanh", "Sigmoid", "Softsign",
        "Mish", "SELU", "CELU", "ReLU6", "Hardtanh", "Hardswish", "Hardsigmoid", "Tanhshrink", "LogSigmoid",
    )
}  # fmt: skip
"""PyTorch's elementwise modules, by their names in small letters: ours are the same with underscores."""
SHOWN = 16
"""Numbers that a line of code shows; more are left to the file."""


def module_of(activation: str) -> str:
    """PyTorch's module of an activation. Raises `UserError` where there is none."""
    name = MODULES.get(activation.replace("_", ""))
    if name is None:
        what = f"PyTorch has no module {activation!r} for a plain nn.Sequential"
        raise UserError("to", what, "export to .onnx or .py")
    return name


def state_dict(network: TrainedNetwork) -> dict[str, Array]:
    """`0.weight [n_out, n_in]`, `0.bias [n_out]`, `2.weight`, …: an activation stands between two layers."""
    module_of(network.config.model.activation)
    state = {}
    for k, (W, b) in enumerate(network.weights.layers):
        state[f"{2 * k}.weight"], state[f"{2 * k}.bias"] = np.ascontiguousarray(W.T), np.ascontiguousarray(b)
    return state


def safetensors(network: TrainedNetwork, card: str) -> bytes:
    """The state_dict as safetensors, with the card, names and standardisation as metadata."""
    from safetensors.numpy import save

    fitted = network.fitted
    lists: dict[str, Sequence[object]] = {"columns": fitted.columns}
    lists |= {"targets": fitted.targets} if fitted.targets else {"classes": fitted.classes}
    if fitted.encoding is not None:
        columns = [dataclasses.asdict(column) for column in fitted.encoding.columns]
        lists |= {"inputs": fitted.inputs, "encoding": columns}
    lists |= {name: values.tolist() for name, values in _numbers(network).items()}
    metadata = {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()}
    content: bytes = save(state_dict(network), {"format": "pt", "model_card": card, **metadata})
    return content


def _numbers(network: TrainedNetwork) -> dict[str, Array]:
    """What rows are standardised by, and targets."""
    fitted = network.fitted
    numbers = {"mean": fitted.mean, "scale": fitted.scale}
    of_targets = {"target_mean": fitted.target_mean, "target_scale": fitted.target_scale}
    return numbers | of_targets if fitted.targets else numbers


def pt(network: TrainedNetwork) -> bytes:
    """The state_dict as `torch.save` writes it."""
    import torch

    content = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in state_dict(network).items()}, content)
    return content.getvalue()


def code(network: TrainedNetwork, name: str, shortened_to: str = "") -> str:
    """The lines of Python that load a file of this name and predict with it. Long lists of numbers are left
    out where `shortened_to` says which file has them."""
    fitted, config, numbers = network.fitted, network.config, _numbers(network)
    kind, named = ("targets", fitted.targets) if fitted.targets else ("classes", fitted.classes)
    activation = module_of(config.model.activation)
    modules: list[str] = []
    for W, _ in network.weights.layers:
        modules += [f"nn.{activation}()"] * bool(modules) + [f"nn.Linear{W.shape}"]
    joined = ", ".join(modules)
    if len(joined) > 80:
        joined = "\n    " + ",\n    ".join(modules) + ",\n"
    double = config.dtype == "float64"
    lines = [f"model = nn.Sequential({joined})" + ".double()" * double]
    if name.endswith(".safetensors"):
        imports = [
            "import json",
            "",
            "import torch",
            "from safetensors import safe_open",
            "from torch import nn",
        ]
        lines += [
            f"with safe_open({name!r}, 'pt') as file:",
            "    model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})",
            f"    names = {', '.join(map(repr, (kind, *numbers)))}",
            f"    {kind}, *numbers = (json.loads(file.metadata()[name]) for name in names)",
            f"{', '.join(numbers)} = (torch.tensor(each, dtype=torch.float64) for each in numbers)",
        ]
    else:
        imports = ["import torch", "from torch import nn"]
        lines.append(f"model.load_state_dict(torch.load({name!r}, weights_only=True))")
        for what, values in numbers.items():
            short = bool(shortened_to) and len(values) > SHOWN
            written = "[...]" if short else values.tolist()
            note = f"  # {len(values)} numbers, in {shortened_to}" * short
            lines.append(f"{what} = torch.tensor({written}, dtype=torch.float64){note}")
        short = bool(shortened_to) and len(named) > SHOWN
        lines.append(f"{kind} = {'[...]' if short else list(named)}")
    cast = "" if double else ".float()"
    what = "columns" if fitted.encoding is None else "inputs that the model card names"
    outputs = f"model(((x.double() - mean) / scale){cast})"
    rows = f"  # rows [n, {len(fitted.inputs)}], in the order of the {what}"
    lines.append(f"def {'predictions' if fitted.targets else 'probabilities'}(x):{rows}")
    if fitted.targets:
        lines.append(f"    return {outputs}.double() * target_scale + target_mean")
    elif network.criterion.is_softmax:
        lines.append(f"    return {outputs}.softmax(1)")
    else:
        function = ".sigmoid()" if network.criterion.output == "sigmoid" else ".clamp(0, 1)"
        lines.append(f"    p = {outputs}{function}")
        lines.append("    total = p.sum(1, keepdim=True)")
        lines.append(f"    return torch.where(total > 0, p / total, 1 / {len(named)})")
    return "\n".join([*imports, "", *lines]) + "\n"
