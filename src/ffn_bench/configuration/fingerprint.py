"""Which keys a run's result depends on, and their digest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from ffn_bench.configuration.schema import (
    SCHEMA,
    TrainConfig,
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
)
"""Keys that say where a run is kept or how it is handled, or repeat another; no result depends on them."""

SEEDS = ("seed", "init_seed", "order_seed", "data.split_seed")
"""Keys in which repetitions of one run differ."""

LATER: dict[str, Any] = {"data.duplicates": "warn", "init_seed": None, "order_seed": None}
"""Keys that older runs do not have, each with the value that corresponds to them."""


def result_keys(config: TrainConfig) -> dict[str, Any]:
    """The flat keys on which a run's result depends."""
    return {key: value for key, value in flatten(config).items() if key not in NOT_RESULTS}


def fingerprint(config: TrainConfig) -> str:
    """SHA-256 (hex) of `result_keys`: two runs share it exactly when they are the same run.

    Keys of `LATER` count only where their value is another one, so that fingerprints of older runs stay.
    """
    keys = {key: value for key, value in result_keys(config).items() if (key, value) not in LATER.items()}
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
    return {key: keys[key] for key in sorted(keys) if key not in NOT_RESULTS}
