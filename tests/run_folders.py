"""Run folders as `ffn-train` leaves them, with measurements that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import parsed
from ffn_bench.configuration import schema
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.run_folder.identity import FORMAT, PROTOCOL

_parsed: dict[tuple[str, ...], TrainConfig] = {}


def flat(*overrides: str) -> dict[str, Any]:
    """The configuration of a run, as run.json has it."""
    if overrides not in _parsed:
        _parsed[overrides] = parsed(*overrides)
    return schema.flatten(_parsed[overrides])


def write_run(
    folder: Path,
    *overrides: str,
    val: Sequence[float | None] = (0.5, 0.9),
    test: Sequence[float | None] | None = None,
    loss: Sequence[float | None] | None = None,
    status: str | None = "finished",
    every: int = 10,
    changes: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run with one measurement an epoch from epoch 0 on, `every` steps and a second apart.

    `status` None leaves out summary.json; `settings` and `changes` replace entries of the configuration and
    of run.json.
    """
    folder.mkdir(parents=True)
    identity = {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "config": {**flat(*overrides), **{key.replace("__", "."): value for key, value in settings.items()}},
        "data_sha256": "d" * 64,
        "device": "cpu",
        "threads": 1,
        "machine": "a machine",
        "trained_beside": 0,
        **(changes or {}),
    }
    (folder / "run.json").write_text(json.dumps(identity))
    lines = []
    for epoch, value in enumerate(val):
        line: dict[str, Any] = {
            "step": every * epoch,
            "epoch": epoch,
            "time": 0.0,
            "train_seconds": float(epoch),
        }
        line["accuracy/val"] = value
        line["accuracy/test"] = value if test is None else test[epoch]
        line["loss/train"] = 1.0 / (1 + epoch) if loss is None else loss[epoch]
        lines.append(json.dumps(line) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    if status is not None:
        (folder / "summary.json").write_text(
            json.dumps({"status": status, "reason": "", "final": {}, "best": None})
        )
    return folder
