"""The model card: what a network was trained on, how, how it was chosen, and how well it does."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from ffn_bench import __version__, tags
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.errors import printable
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.fitted import Fitted
from ffn_bench.run_folder.trained_network import TrainedNetwork


def text(network: TrainedNetwork) -> str:
    """The card as Markdown. What comes from files stands in indented lines, where nothing is markup."""
    config, fitted, weights = network.config, network.fitted, network.weights
    folder = network.recorded.folder
    identity = reading.read_identity(Folder(folder)) or {}
    summary = reading.read_summary(Folder(folder)) or {"status": network.recorded.status, "best": None}
    parameters = schema.count_parameters(weights.widths)
    sections: dict[str, dict[str, Any]] = {
        "Network": {
            "layers": "-".join(map(str, weights.widths)),
            "activation": config.model.activation,
            "parameters": f"{parameters:,}, {config.dtype}",
            "input": f"{len(fitted.columns)} columns: {_some(fitted.columns)}",
            **_encoded(fitted),
            "standardised": "(x - mean) / scale, both of the training rows",
            "output": _output(network),
            "loss": _loss(network),
        },
        "Data": {"data set": config.data.name, "SHA-256": network.recorded.data},
        "Choice": {
            "weights": weights.words,
            "chosen": _chosen(network, summary),
            **({"note": network.caution} if network.caution else {}),
        },
        "Scores at this step": _scores(network),
        "Training": {
            "run": folder.absolute().name,
            "status": ": ".join(filter(None, (summary["status"], summary.get("reason", "")))),
            "started": identity.get("started", "unknown"),
            "engine": identity.get("engine", "torch"),
            "versions": ", ".join(f"{name} {v}" for name, v in identity.get("versions", {}).items()),
        },
        "Settings": fingerprint.result_keys(config),
        "Export": {
            "by": f"ffn-bench {__version__}",
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        },
    }
    lines = ["# Model card of a feed-forward network"]
    for title, entries in sections.items():
        lines += ["", f"## {title}", ""]
        width = max((len(key) for key in entries), default=0)
        lines += [printable(f"    {key:<{width}}  {value}".rstrip()) for key, value in entries.items()]
        lines += [] if entries else ["    none were recorded"]
    return "\n".join(lines) + "\n"


def _encoded(fitted: Fitted) -> dict[str, str]:
    """What becomes of the columns, where they are not numbers as they are."""
    if fitted.encoding is None:
        return {}
    entries = {"encoded as": f"{len(fitted.inputs)} inputs: {', '.join(fitted.inputs)}"}
    columns = zip(fitted.columns, fitted.encoding.columns, strict=True)
    fills = {
        name: column.categories[int(column.fill)] if column.holds == "category" else f"{column.fill:g}"
        for name, column in columns
        if column.fill is not None
    }
    if fills:
        entries["blanks"] = ", ".join(f"{name}: {fill}" for name, fill in fills.items())
    return entries


def _output(network: TrainedNetwork) -> str:
    """What comes out of the network."""
    fitted, function = network.fitted, network.criterion.output
    if fitted.targets:
        targets = f"{len(fitted.targets)} target{'s' * (len(fitted.targets) > 1)}: {_some(fitted.targets)}"
        return f"{targets}; outputs * scale + mean, both of the training rows, in their own unit"
    of = f"over {len(fitted.classes)} classes: {_some(fitted.classes)}"
    return (
        f"softmax {of}" if network.criterion.is_softmax else f"{function}, between 0 and 1, over its sum {of}"
    )


def _loss(network: TrainedNetwork) -> str:
    """What was minimised."""
    criterion, weights = network.criterion, network.config.loss.class_weight
    smoothing = f", label smoothing {criterion.smoothing:g}" if criterion.smoothing else ""
    weighted = "" if weights == "none" else f", class weights {weights}"
    return f"{criterion.loss} on {criterion.output} outputs{smoothing}{weighted}"


def _some(names: tuple[str, ...]) -> str:
    """The first of some names."""
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _chosen(network: TrainedNetwork, summary: dict[str, Any]) -> str:
    """How the weights were chosen."""
    at = network.weights.at
    if at == "best":
        return (
            f"the epoch of the best {tags.words(network.config.monitored)}, of {summary.get('epochs', '?')}"
        )
    return "the last checkpoint" if at == "last" else f"asked for by at={at}"


def _scores(network: TrainedNetwork) -> dict[str, str]:
    """What the run measured at the step of the weights."""
    scores = {}
    for tag, curve in network.recorded.curves.items():
        at = np.flatnonzero(curve.steps == network.weights.step)
        if len(at):
            scores[tag] = tags.quantity(tag).text(float(curve.values[at[-1]]))
    return scores
