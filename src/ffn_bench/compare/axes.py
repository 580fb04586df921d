"""Which keys vary in a set of runs, and the role of each: compared, tuned, workload, or seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffn_bench.configuration.fingerprint import NOT_RESULTS, SEEDS
from ffn_bench.configuration.schema import GROUPS
from ffn_bench.errors import UserError, nearest, printable
from ffn_bench.run_folder.recorded_run import RecordedRun

NO_AXES = (
    *NOT_RESULTS,
    *SEEDS,
    "device",
    "log_every",
    "gradient",
    "trajectory",
    "log_curvature",
    "data.delimiter",
)
"""Keys that no comparison is about: results do not depend on them, or only by rounding."""

MAX_COMPETITORS = 60
"""Competitors at most; more are a sign that most of the keys should be tuned."""


@dataclass(frozen=True)
class Axes:
    """Keys of the runs' configurations by their role."""

    compared: tuple[str, ...]
    tuned: tuple[str, ...]
    workloads: tuple[str, ...]

    def competitor(self, run: RecordedRun) -> str:
        """The competitor that a run belongs to: `adam`, `adam · tanh`."""
        return label(run, self.compared) or "all runs"

    def workload(self, run: RecordedRun) -> str:
        """What it was trained on: `digits`, `moons · lecture`."""
        return label(run, self.workloads or ("data.name",))

    def setting(self, run: RecordedRun) -> tuple[tuple[str, Any], ...]:
        """The values of what is tuned, of those keys that the run has; hashable."""
        return tuple((key, _plain(run.config[key])) for key in self.tuned if key in run.config)


def find(
    runs: Sequence[RecordedRun],
    by: Sequence[str] = (),
    tune: Sequence[str] = (),
    workloads: Sequence[str] = (),
) -> Axes:
    """Give every key that varies its role.

    Keys named in `by`, `tune` and `workloads` have that role. Of the rest, numbers of the training (rate,
    hyper-parameters, batch size, λ) are tuned and everything else is compared; where nothing else varies,
    they are compared, unless runs were recorded as tuning runs. Keys may be a group (`optimizer` is its
    name; as a workload all that varies in it). Raises `UserError` for unknown keys, for mixed
    protocol versions, and for several data sets that are not named as workloads.
    """
    protocols = sorted({str(run.protocol) for run in runs})
    if len(protocols) > 1:
        raise UserError(
            "runs",
            f"have different protocol versions ({printable(', '.join(protocols))})",
            "compare them separately",
        )
    varied = _varied(runs)
    every = {key for run in runs for key in run.config}
    lists = {}
    for name, keys in (("by", by), ("tune", tune), ("workloads", workloads)):
        lists[name] = tuple(dict.fromkeys(key for k in keys for key in _expand(name, k, varied, every)))
    for key in lists["by"]:
        if key in lists["tune"] or key in lists["workloads"]:
            raise UserError("by", f"{key} cannot be compared and {_other(key, lists)} too", "name it once")
    rest = [k for k in varied if not any(k in named for named in lists.values())]
    if data_keys := [k for k in rest if k.startswith("data.")]:
        values = ", ".join(sorted({str(run.config.get(data_keys[0])) for run in runs}))
        raise UserError(
            "runs",
            f"use different data ({data_keys[0]}: {printable(values)})",
            "compare them separately, or combine several data sets with workloads=data",
        )
    tunable = [k for k in rest if _is_tunable(k)]
    others = [k for k in rest if k not in tunable]
    if not by:
        searched = others or any(run.config.get("stage") == "tune" for run in runs)
        compared, tuned = (others, [*tunable, *lists["tune"]]) if searched else (tunable, [*lists["tune"]])
    elif not tune:
        compared, tuned = [*lists["by"]], rest
    else:
        compared, tuned = [*lists["by"], *rest], [*lists["tune"]]
    axes = Axes(tuple(compared), tuple(tuned), lists["workloads"])
    names = {axes.competitor(run) for run in runs}
    if len(names) > MAX_COMPETITORS:
        raise UserError(
            "by",
            f"{len(names)} competitors are too many ({', '.join(axes.compared)})",
            "name the keys to compare, the others are tuned: by=optimizer",
        )
    _check_data(runs, axes)
    return axes


def _other(key: str, lists: dict[str, tuple[str, ...]]) -> str:
    return "tuned" if key in lists["tune"] else "a workload"


def _is_tunable(key: str) -> bool:
    """Whether a key is a number of the training."""
    group, _, rest = key.partition(".")
    if rest:
        return group in ("optimizer", "schedule", "loss") and rest not in ("name", "output", "class_weight")
    return key in ("lr", "l2", "l1", "batch_size", "epochs")


def _expand(name: str, key: str, varied: Sequence[str], every: set[str]) -> list[str]:
    """The keys that one word on the command line stands for."""
    if key in GROUPS:
        if name == "workloads":
            return [k for k in varied if k.startswith(f"{key}.")] or [f"{key}.name"]
        return [f"{key}.name"]
    if key == "optimizer.lr":
        key = "lr"
    if key in SEEDS:
        raise UserError(name, f"{key} only repeats a run and has no other role", "name another key")
    if key not in every:
        known = sorted({*every, *GROUPS})
        raise UserError(name, f"the runs have no key {key!r}{nearest(key, known)}", "name keys of ffn-train")
    return [key]


def _varied(runs: Sequence[RecordedRun]) -> list[str]:
    """Keys whose value does not follow from the choice of options: names first, then in the runs' order.

    A key inside a group counts where runs of one option differ in it: that adam has `betas` and sgd has none
    is not an axis, nor is a batch size or a rate that belongs to an optimizer.
    """
    names = [f"{group}.name" for group in ("optimizer", "schedule", "loss", "model", "data")]
    first: dict[str, Any] = {}
    differ = {k for run in runs for k, value in run.config.items() if first.setdefault(k, value) != value}
    differ.difference_update(NO_AXES)
    values: dict[str, dict[Any, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        chosen = {key: run.config.get(key) for key in names}
        for key in differ & run.config.keys():
            group = f"{key.partition('.')[0]}.name"
            if key in names:
                context: Any = None
            else:
                context = chosen[group] if group in chosen else tuple(map(str, chosen.values()))
            values[key][context].add(json.dumps(run.config[key], sort_keys=True))
    varied = [key for key in first if any(len(seen) > 1 for seen in values.get(key, {}).values())]
    return sorted(varied, key=lambda key: names.index(key) if key in names else len(names))


def _check_data(runs: Sequence[RecordedRun], axes: Axes) -> None:
    """One workload with one split must be one data set, whatever its name says."""
    hashes: dict[tuple[str, Any], RecordedRun] = {}
    for run in runs:
        key = (axes.workload(run), run.config.get("data.split_seed"))
        first = hashes.setdefault(key, run)
        if first.data != run.data:
            raise UserError(
                "runs",
                f"{printable(first.folder.name)} and {printable(run.folder.name)} were trained on different "
                f"data under the same name ({key[0]})",
                "compare them separately",
            )


def label(run: RecordedRun, keys: Sequence[str]) -> str:
    """The values of keys as text. A name stands alone, other values follow their key."""
    words = []
    for key in keys:
        if key not in run.config:
            continue
        value = run.config[key]
        text = shown(value)
        if isinstance(value, float) and float(text) != value:
            text = repr(value)  # different values get different names
        words.append(
            text if key.endswith(".name") or isinstance(run.config[key], str) else f"{short(key)} {text}"
        )
    return printable(" · ".join(words))


def short(key: str) -> str:
    """A key without its group: `optimizer.betas` is betas, and `optimizer.name` is optimizer."""
    return key.removesuffix(".name").rpartition(".")[2]


def shown(value: Any) -> str:
    """A configuration value as text: numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def _plain(value: Any) -> Any:
    """The same value, hashable."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
