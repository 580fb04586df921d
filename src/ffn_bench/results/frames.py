"""What was measured, as Polars frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from ffn_bench import tags
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import measured_numbers


def history(folder: Folder) -> pl.DataFrame:
    """`Run.history`. Raises `UserError` (status 4) for a metrics.jsonl that is damaged."""
    rows: dict[float, dict[str, Any]] = {}
    measured: dict[str, None] = {}
    for step, epoch, seconds, tag, number in measured_numbers(folder):
        row = rows.setdefault(step, {"step": int(step), "epoch": int(epoch), "train_seconds": seconds})
        row[tag] = None if math.isnan(number) else number
        measured[tag] = None
    schema: dict[str, Any] = {"step": pl.Int64, "epoch": pl.Int64, "train_seconds": pl.Float64}
    return pl.DataFrame(list(rows.values()), schema | dict.fromkeys(in_order(measured), pl.Float64))


def in_order(measured: Mapping[str, Any]) -> list[str]:
    """Tags in the order in which they are shown."""
    known = [tag for q in tags.QUANTITIES for tag in ([q.tag(s) for s in q.splits] or [q.name])]
    return [tag for tag in known if tag in measured] + [tag for tag in measured if tag not in known]


def summary(content: Mapping[str, Any] | None) -> pl.DataFrame:
    """`Run.summary`, of what summary.json says."""
    best, final = ((content or {}).get(at) or {} for at in ("best", "final"))
    rows: list[dict[str, Any]] = []
    if best:
        rows.append({"at": "best", **best})
    if content and final:
        rows.append({"at": "final", "epoch": content["epochs"], "step": content["steps"], **final})
    measured = {tag: None for row in rows for tag in row if tag not in ("at", "epoch", "step")}
    schema: dict[str, Any] = {"at": pl.String, "epoch": pl.Int64, "step": pl.Int64}
    return pl.DataFrame(rows, schema | dict.fromkeys(in_order(measured), pl.Float64))
