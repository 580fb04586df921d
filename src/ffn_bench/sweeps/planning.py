"""What a sweep is going to train: every run composed and checked before the first one starts.

Hydra composes a configuration from files for every run, which takes it 60 ms. Runs of a sweep mostly differ
in plain values (a seed, a learning rate), so it is asked once for each choice of files; values are then set
in a copy that is used over and over, and only they are read back from it. Where all runs choose the files
that the sweep itself was composed of, that copy is of the sweep's configuration.

What checks data and optimizers is imported once a run has been composed: a mistyped key is answered before.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ffn_bench.command_line.hydra_internals import BasicSweeper, get_overrides_dirname
from ffn_bench.command_line.resolvers import SUBDIR
from ffn_bench.configuration import parsing
from ffn_bench.configuration.fingerprint import NOT_RESULTS, SEEDS, fingerprint, result_keys, results_of
from ffn_bench.configuration.schema import GROUPS, TrainConfig
from ffn_bench.engine import build
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.run_folder import folders, lock, reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.sweeps.leaderboard import names_of, settings_of

TEMPLATES = 200
"""Configurations that are kept to set values in."""
CACHED = 10_000
"""Overrides that are kept parsed."""
BUDGET = ("epochs", "batch_size", "drop_last", "dtype")
"""Keys that all runs of a sweep share, unless it sweeps over them."""


@dataclass(frozen=True)
class Planned:
    """A run of a sweep: its overrides, its configuration as plain values, its folder."""

    overrides: tuple[str, ...]
    run: TrainConfig
    folder: Folder

    def status_and_summary(self) -> tuple[str, dict[str, Any] | None]:
        """Its status, and its summary if it has ended: see `reading.status_and_summary`."""
        return reading.status_and_summary(self.folder, self.run)

    def summary(self) -> dict[str, Any] | None:
        """The second of `status_and_summary`: never another run's, even if one was moved into its folder."""
        return self.status_and_summary()[1]


class ConfigTemplate:
    """A composed configuration that runs share but for some plain values, which are set in it.

    `keys` are those values' keys. `run` is the run whose values were read last.
    """

    def __init__(self, cfg: DictConfig, keys: Sequence[str]) -> None:
        self.cfg = cfg
        self.run: TrainConfig | None = None
        self._current: dict[str, str] = {}
        raw = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
        assert isinstance(raw, dict)
        self._hydra = raw.pop("hydra")
        self._raw = raw
        self.subdir = self._hydra["sweep"]["subdir"]
        linked = {path: text for path, text in _leaves(raw) if "${" in text}
        self._paths = {tuple(key.split(".")[: 2 if key.split(".")[0] in GROUPS else 1]) for key in keys}
        for path, text in linked.items():
            name = re.fullmatch(
                r"\$\{(\w+)\}", text
            )  # of another key, on which it depends and on nothing else
            if not name or (name[1],) in self._paths or (name[1],) in linked:
                self._paths.add(path)

    def set(self, key: str, value: Any) -> None:
        """Set a value. Raises OmegaConf's errors."""
        if repr(value) != self._current.get(key):
            OmegaConf.update(self.cfg, key, value, merge=True)
            self._current[key] = repr(value)

    def plain(self) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """What is composed as plain values, interpolations as they are written, and its node `hydra`. The
        next call changes both."""
        for key in self._current:
            *above, last = key.split(".")
            value = OmegaConf.select(self.cfg, key)
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            functools.reduce(operator.getitem, above, self._raw)[last] = plain
        return self._raw, self._hydra

    def values(self) -> dict[tuple[str, ...], Any]:
        """What may differ from run to run, by path: (key,) or (group, key)."""
        values = {}
        for path in self._paths:
            node = functools.reduce(operator.getitem, path, self.cfg)
            values[path] = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
        return values


def _leaves(raw: dict[Any, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Paths of a configuration's values, (key,) or (group, key), and what is written there."""
    for key, value in raw.items():
        if key in GROUPS and isinstance(value, dict):
            yield from (((key, below), str(content)) for below, content in value.items())
        else:
            yield (key,), str(value)


class Planner:
    """Composes and checks the runs of one sweep. `warnings` are of its data, and not reported yet."""

    def __init__(self, master: DictConfig, context: HydraContext) -> None:
        self.master, self.loader = master, context.config_loader
        self.folder = Path(str(master.hydra.sweep.dir))
        parser = OverridesParser.create(config_loader=self.loader)
        self._parsed = functools.lru_cache(CACHED)(lambda override: parser.parse_overrides([override])[0])
        self._is_group = functools.cache(lambda key: bool(self.loader.get_group_options(key)))
        self._is_plain = functools.lru_cache(CACHED)(
            lambda override: self._sets_a_value(self._parsed(override))
        )
        self._templates: dict[Any, ConfigTemplate] = {}
        self._dirname: Any = OmegaConf.to_container(master.hydra.job.config.override_dirname)
        self._checked: set[str] = set()
        self.warnings: list[str] = []
        self._names: dict[Folder, tuple[str, ...]] = {}
        self._planned: dict[tuple[str, ...], Planned] = {}
        self._by_tail: dict[str, Planned] = {}

    def plan(self, job: Sequence[str]) -> Planned:
        """Compose and check one run. Creates nothing; raises `UserError` where it could not be trained."""
        overrides = tuple(job)
        if overrides in self._planned:
            return self._planned[overrides]
        planned = self.find(overrides)
        if getattr(planned.run.data, "preview", False):
            raise UserError("data.preview", "shows a table and trains nothing", "leave -m out")
        same = planned if planned.folder in self._names else self._said_otherwise(planned)
        if same is not None:
            first = " ".join(self._names[same.folder])
            raise UserError("sweep", f"{first} and {' '.join(overrides)} are the same run", "give it once")
        self._names[planned.folder] = overrides
        self._check(planned)
        self._planned[overrides] = planned
        return planned

    def _said_otherwise(self, planned: Planned) -> Planned | None:
        """The planned run that is this one in other words, such as another name of its loss: folders that the
        sweep names end with a digest of the run."""
        tail = planned.folder.path.name[-folders.HASH_DIGITS[0] :]
        other = self._by_tail.setdefault(tail, planned)
        return other if other is not planned and fingerprint(other.run) == fingerprint(planned.run) else None

    def find(self, job: Sequence[str]) -> Planned:
        """Compose one run and name its folder. Raises `UserError` where its configuration is wrong."""
        overrides = tuple(job)
        run, subdir = self._run_and_subdir(overrides)
        folder = Folder.below(self.folder, self._subdir_of(run, subdir))
        return Planned(overrides, run, folder)

    def restage(self, planned: Planned, stage: str) -> Planned:
        """The same run, for another stage of a tuning. A run is the same whatever it is for."""
        overrides = (*(o for o in planned.overrides if not o.startswith("stage=")), f"stage={stage}")
        again = replace(planned, overrides=overrides, run=replace(planned.run, stage=stage))
        self._planned[overrides], self._names[planned.folder] = again, overrides
        return again

    def _subdir_of(self, run: TrainConfig, subdir: str) -> str:
        """A run's folder below the sweep's: the one it has already, if it was written in another way then."""
        if subdir in self._existing:
            return subdir
        digest = fingerprint(run)
        if not subdir.endswith(digest[: folders.HASH_DIGITS[0]]):  # a name of the person's own
            return subdir
        for digits in folders.HASH_DIGITS:
            name = self._tails.get(digest[:digits])
            if name and self._identity(name).get("fingerprint") == digest:
                return name
        return subdir

    def _identity(self, name: str) -> dict[str, Any]:
        """What the run.json of a run of the sweep says; nothing where it is damaged."""
        with suppress(UserError):
            return reading.read_identity(Folder(self.folder, (name,))) or {}
        return {}

    def check_extends(self) -> None:
        """Raise `UserError` (status 4) unless the runs planned go with those that the sweep holds already.

        A sweep may be extended by values that are swept, by seeds, and by other optimizers, networks, data
        sets or schedules, each with values of its own. A budget that is another one throughout (epochs, batch
        size, …), or any other value where all the rest is the same, makes two sweeps, whose runs would be
        compared as if they were one.
        """
        planned_configs = [result_keys(planned.run) for planned in self._planned.values()]
        names = self._existing - {planned.folder.name for planned in self._planned.values()}
        recorded_configs = [
            results_of(identity["config"])
            for name, identity in ((name, self._identity(name)) for name in sorted(names))
            if any(name.endswith(str(identity.get("fingerprint"))[:digits]) for digits in folders.HASH_DIGITS)
        ]  # others were put there by a person
        if not planned_configs or not recorded_configs:
            return

        def values(of: Sequence[dict[str, Any]], key: str) -> set[str]:
            return {json.dumps(one.get(key)) for one in of}

        chosen = [f"{group}.name" for group in GROUPS]
        same = all(values(planned_configs, key) == values(recorded_configs, key) for key in chosen)
        for key in planned_configs[0]:
            if key in (*SEEDS, *chosen, *NOT_RESULTS) or not all(key in one for one in recorded_configs):
                continue
            new, old = values(planned_configs, key), values(recorded_configs, key)
            if len(new) == len(old) == 1 and new != old and (same or key in BUDGET or "data." in key):
                what = f"holds runs with {key} {old.pop()}, and now it is {new.pop()}"
                todo = f"sweep over {key}, or use another name"
                raise UserError(str(self.folder), what, todo, RUN_FOLDER)

    @functools.cached_property
    def _existing(self) -> set[str]:
        """The folders of the sweep's runs that have started."""
        return {file.parent.name for file in self.folder.glob("*/run.json")}

    @functools.cached_property
    def _tails(self) -> dict[str, str]:
        """The same, by the hashes their names end with."""
        return {name.rpartition("-")[2]: name for name in self._existing}

    def _check(self, planned: Planned) -> None:
        """Data, network and device once for all runs that share them, the optimizer's settings likewise."""
        from ffn_bench.engine.choice import choose
        from ffn_bench.optimizers.rules import RULES

        run = planned.run
        monitor = run.monitor, run.patience
        shared = repr((run.data, run.model, run.batch_size, run.drop_last, run.dtype, run.device, monitor))
        if shared not in self._checked:
            self._warn(run, build.prepare(run).data.warnings)
            self._checked.add(shared)
        # Our own rules were checked with the configuration; others are tried out.
        optimizer = repr((run.optimizer, run.engine, run.gradient, run.device))
        if optimizer not in self._checked:
            choose(run)
            if run.optimizer.name not in RULES:
                from ffn_bench.optimizers.torch_optimizers import check_optimizer

                check_optimizer(run.optimizer)
            self._checked.add(optimizer)

    def _warn(self, run: TrainConfig, warnings: Sequence[str]) -> None:
        """Keep the warnings about the data, once for a data set, however often it is split."""
        key = repr(replace(run.data, split_seed=0))
        if key not in self._checked:
            self.warnings += [f"{run.data.name}: {warning}" for warning in warnings]
            self._checked.add(key)

    def compose(self, job: Sequence[str], number: int = 0) -> DictConfig:
        """The configuration of a run. It is valid until the next call, which may change it.

        Raises Hydra's and OmegaConf's errors.
        """
        cfg = self._set(job).cfg
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            for (node, key), value in self._of_job(job, number).items():
                cfg.hydra[node][key] = value
        return cfg

    def files_of(self, planned: Planned, number: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """`compose` as plain values, and its node `hydra`, as Hydra writes them into a run's folder. They are
        valid until the next call, which may change them."""
        content, hydra = self._set(planned.overrides).plain()
        for (node, key), value in self._of_job(planned.overrides, number).items():
            hydra[node][key] = value
        hydra["runtime"]["output_dir"] = str(planned.folder.path.absolute())
        return content, hydra

    def _of_job(self, job: Sequence[str], number: int) -> dict[tuple[str, str], Any]:
        """What is a run's own in the node `hydra`: (node, key) and its value."""
        task = [override for override in map(self._parsed, job) if not override.is_hydra_override()]
        other_folder = str(self._set(job).cfg.hydra.sweep.dir) != str(self.folder)
        return {
            ("overrides", "task"): [override.input_line for override in task],
            ("job", "override_dirname"): get_overrides_dirname(task, **self._dirname),
            ("job", "id"): str(number),
            ("job", "num"): number,
            **({("sweep", "dir"): str(self.folder)} if other_folder else {}),
        }

    def _run_and_subdir(self, job: Sequence[str]) -> tuple[TrainConfig, str]:
        """What a run is, and its folder below the sweep's."""
        template = self._set(job)
        if template.run is None:
            template.run = parsing.parse(template.cfg)
        else:
            template.run = parsing.set_values(template.run, template.values())
        if template.subdir != SUBDIR or any("$" in override for override in job):
            return template.run, str(self.compose(job).hydra.sweep.subdir)
        task = [override for override in map(self._parsed, job) if not override.is_hydra_override()]
        return template.run, folders.run_name(get_overrides_dirname(task, **self._dirname), template.run)

    def _set(self, job: Sequence[str]) -> ConfigTemplate:
        """The template that a run follows, with the run's values set in it."""
        keys = [key for key in (self._parsed(o).key_or_group for o in job) if not self._is_group(key)]

        def is_plain(override: str) -> bool:
            # Of keys that are given twice, or lie below another, it matters which comes last.
            own = self._parsed(override).key_or_group
            near = [k for k in keys if k == own or k.startswith(f"{own}.") or own.startswith(f"{k}.")]
            return len(near) == 1 and self._is_plain(override)

        plain = [self._parsed(override) for override in job if is_plain(override)]
        files = tuple(override for override in job if not is_plain(override))
        key = files, tuple(override.key_or_group for override in plain)
        template = self._templates.get(key)
        if template is None:
            cfg = self._copy_of_master(files, plain) or self.loader.load_sweep_config(self.master, list(job))
            if len(self._templates) == TEMPLATES:
                del self._templates[next(iter(self._templates))]
            self._templates[key] = template = ConfigTemplate(cfg, key[1])
        else:
            try:
                for override in plain:
                    template.set(override.key_or_group, override.value())
            except OmegaConfBaseException:
                self.loader.load_sweep_config(self.master, list(job))  # whose error says more
                raise
        return template

    def _copy_of_master(self, files: Sequence[str], plain: Sequence[Override]) -> DictConfig | None:
        """The configuration of runs that set some values and choose the files that the sweep's own does,
        which was composed already; None where they must be composed. Raises OmegaConf's errors."""
        chosen: Any = OmegaConf.to_container(self.master.hydra.overrides.task, resolve=False)
        if not all(file in chosen and self._is_group(self._parsed(file).key_or_group) for file in files):
            return None
        if any(override.type != OverrideType.CHANGE for override in plain):
            return None
        keys = {override.key_or_group for override in plain}
        in_master = [override for override in map(self._parsed, chosen) if not override.is_sweep_override()]
        if not all(o.key_or_group in keys or o.input_line in files for o in in_master):
            return None  # a tuning leaves out what it sets itself
        cfg = copy.deepcopy(self.master)
        for override in plain:
            try:
                OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
            except (ConfigAttributeError, ConfigKeyError):  # a key that does not exist
                raise
            except OmegaConfBaseException:
                return None  # composing says more
        return cfg

    def _sets_a_value(self, override: Override) -> bool:
        """Whether an override sets one value that already exists, and chooses no file."""
        return (
            override.type in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
            and override.package is None
            and not override.is_hydra_override()
            and not self._is_group(override.key_or_group)
            and isinstance(override.value(), (bool, int, float, str, type(None), list))
            and not any(sign in str(override.input_line) for sign in ("${", "???"))
        )


def show_status(folder: Path, jobs: Sequence[Sequence[str]], plans: Iterable[Planned]) -> None:
    """Print the status of every run of a sweep, one by one where they are few. Trains and creates nothing.

    `jobs` are the overrides of `plans`, which are read one after the other, and not kept.
    """
    from ffn_bench.command_line import tables

    listed = len(jobs) <= tables.STATUS_ROWS
    names = names_of([settings_of(job) for job in jobs]) if listed else itertools.repeat("")

    def rows() -> Iterator[tuple[str, str, dict[str, Any] | None]]:
        for name, planned in zip(names, plans, strict=False):
            status, summary = planned.status_and_summary()
            if status in ("begun", "interrupted") and lock.holder(planned.folder):
                status = "running"
            yield name, status, summary

    tables.show_status(rows(), folder, lock.holder(Folder(folder)), listed)


def jobs_of(overrides: Sequence[Override], limit: int) -> list[list[str]]:
    """Every combination of the swept values. Raises `UserError` for more than `limit`, repeated or empty
    ones."""
    total = 1
    for override in overrides:
        steps = override.value()
        if isinstance(steps, RangeSweep) and _length(steps) > limit:  # before its values are written out
            what = f"the sweep has at least {_length(steps):,} runs, the limit is {limit:,}"
            raise UserError("max_runs", what, "raise max_runs")
        if override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
            key = override.get_key_element()
            if len(set(values)) < len(values):
                repeated = next(v for v in values if values.count(v) > 1)
                raise UserError(key, f"{repeated} is duplicated", "give each value once")
            if not values or "" in values:
                raise UserError(key, "contains an empty value", "give values between the commas")
            total *= len(values)
    if total > limit:
        raise UserError("max_runs", f"the sweep has {total:,} runs, the limit is {limit:,}", "raise max_runs")
    return BasicSweeper.split_arguments(list(overrides), max_batch_size=None)[0]


def _length(steps: RangeSweep) -> int:
    """Number of values of a range(start, stop, step)."""
    if steps.start is None or steps.stop is None:
        return 0
    return math.ceil((steps.stop - steps.start) / steps.step)
