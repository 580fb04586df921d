"""Which keys a run's result depends on, and their digest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from ffn_bench import tags
from ffn_bench.configuration.rule_files import defaults_of, optimizer_files
from ffn_bench.configuration.schema import (
    LOSS_OF_TASK,
    SCHEMA,
    DataConfig,
    TrainConfig,
    default_output,
    flatten,
)

NOT_RESULTS = (
    "name",
    "max_runs",
    "force",
    "retry",
    "status",
    "checkpoint_seconds",
    "stage",
    "chunk",
    "chunk_file",
    "optimizer.lr",
    "engine",
    "log_mistakes",
    "log_scores",
    "keep",
    "data.preview",
)
"""Keys that say where a run is kept, how it is handled or what is drawn of it, or repeat another; no result
depends on them."""

SEEDS = ("seed", "init_seed", "order_seed", "data.split_seed")
"""Keys in which repetitions of one run differ."""

FORMER: dict[str, Any] = {"compile": False}
"""Keys that newer runs do not have, each with the value that corresponds to them."""
REPLACED = {"compile": "the compiled engine is the default now"}
"""What has replaced such keys."""

LATER: dict[str, Any] = {
    "data.duplicates": "warn",
    "data.missing": "error",
    "data.drop": [],
    "data.categories": [],
    "data.weight": None,
    "data.test_path": None,
    "data.preview": False,
    "init_seed": None,
    "order_seed": None,
    "monitor": None,
    "patience": None,
    "min_delta": 0.0,
    "l1": 0.0,
    "data.task": "classification",
    "loss.name": "auto",
    "loss.output": None,
    "loss.label_smoothing": 0.0,
    "loss.delta": 1.0,
    "loss.class_weight": "none",
}
"""Keys that older runs do not have, each with the value that corresponds to them."""


def later(flat: dict[str, Any]) -> dict[str, Any]:
    """Those of `LATER` that a run with these flat keys has: of a data set's own those of its kind."""
    name = flat.get("data.name")
    kind = SCHEMA["data"].get(name, DataConfig) if isinstance(name, str) else DataConfig
    own = {f"data.{spec.name}" for spec in dataclasses.fields(kind)}
    return {key: value for key, value in LATER.items() if not key.startswith("data.") or key in own}


def result_keys(config: TrainConfig) -> dict[str, Any]:
    """The flat keys on which a run's result depends."""
    return results_of(flatten(config))


def results_of(flat: dict[str, Any]) -> dict[str, Any]:
    """Those of flat keys on which a run's result depends, the same for runs of any release."""
    keys = {key: value for key, value in flat.items() if key not in (*NOT_RESULTS, *FORMER)}
    if keys.get("data.delimiter", ",") is None:  # found out, which older runs could not
        keys["data.delimiter"] = ","
    if keys.get("gradient") == "auto":  # the same gradient, up to rounding, whoever computes it
        keys["gradient"] = "autograd"
    task = keys.get("data.task", "classification")
    if keys.get("monitor") == tags.PRIMARY[task].tag("val"):  # what null means
        keys["monitor"] = None
    if "loss.name" in keys:
        keys |= _loss_of(keys, task)
    if keys.get("patience") is None and "min_delta" in keys:  # which has no effect then
        keys["min_delta"] = LATER["min_delta"]
    return keys


def _loss_of(keys: dict[str, Any], task: tags.Task) -> dict[str, Any]:
    """The keys of a loss, the same for all ways to say it: `auto` for the task's own, null for a loss's
    default output, weights of classes without those of 1."""
    own = LOSS_OF_TASK[task]
    name, output, weights = (keys[key] for key in ("loss.name", "loss.output", "loss.class_weight"))
    name = own if name == "auto" else name
    output = None if output == default_output(name) else output
    if isinstance(weights, dict):
        weights = {key: float(weight) for key, weight in weights.items() if weight != 1} or "none"
    name = "auto" if (name, output) == (own, None) else name
    return {"loss.name": name, "loss.output": output, "loss.class_weight": weights}


def fingerprint(config: TrainConfig) -> str:
    """SHA-256 (hex) of `result_keys`: two runs share it exactly when they are the same run."""
    return fingerprint_of(flatten(config))


def fingerprint_of(flat: dict[str, Any]) -> str:
    """The same of flat keys, such as those of a run.json.

    Keys of `LATER` count only where their value is another one, so that fingerprints of older runs stay.
    """
    keys = FORMER | {k: v for k, v in results_of(flat).items() if (k, v) not in LATER.items()}
    text = json.dumps(keys, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def superset_of_keys() -> dict[str, Any]:
    """Every flat key any run can have, with a value of its type (numbers 0, strings empty).

    TensorBoard takes the columns of its HParams table from one run, so all runs must name the same ones.
    """

    def example(annotation: Any) -> Any:
        name = getattr(annotation, "__name__", annotation)
        return {"float": 0.0, "int": 0, "bool": False}.get(name, "")

    def leaves(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
        for spec in dataclasses.fields(node):
            if spec.name not in SCHEMA or prefix:
                yield f"{prefix}{spec.name}", example(spec.type)

    keys = dict(leaves(TrainConfig, ""))
    for group, kinds in SCHEMA.items():
        for node in kinds.values():
            keys |= dict(leaves(node, f"{group}."))
    for name in optimizer_files():
        for key, value in (defaults_of(name) or {}).items():
            keys[f"optimizer.{key}"] = example(type(value))
    return {key: keys[key] for key in sorted(keys) if key not in NOT_RESULTS}
