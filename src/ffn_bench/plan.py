"""What a sweep is going to train: every run composed and checked before the first one begins.

Hydra composes a configuration from files for every run, which takes it 60 ms. Runs of a sweep mostly differ
in plain values (a seed, a learning rate), so it is asked once for each choice of files; values are then set
in a copy that is used over and over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from ffn_bench import config, console, runs, train
from ffn_bench.batched import why_not
from ffn_bench.errors import UserError
from ffn_bench.optim import check_optimizer
from ffn_bench.rules import RULES
from ffn_bench.schema import TrainConfig


@dataclass(frozen=True)
class Planned:
    """A run of a sweep: its overrides, its configuration as plain values, its folder, and why it must be
    trained by itself (None where it can be batched)."""

    overrides: tuple[str, ...]
    run: TrainConfig
    folder: Path
    alone: str | None


class Planner:
    """Composes and checks the runs of one sweep."""

    def __init__(self, master: DictConfig, context: HydraContext) -> None:
        self.master, self.loader = master, context.config_loader
        self.folder = Path(str(master.hydra.sweep.dir))
        parser = OverridesParser.create(config_loader=self.loader)
        self._parsed = functools.cache(lambda override: parser.parse_overrides([override])[0])
        self._is_group = functools.cache(lambda key: bool(self.loader.get_group_options(key)))
        self._composed: dict[Any, DictConfig] = {}
        self._checked: set[str] = set()
        self._names: dict[Path, tuple[str, ...]] = {}
        self._planned: dict[tuple[str, ...], Planned] = {}

    def plan(self, job: Sequence[str]) -> Planned:
        """Compose and check one run. Creates nothing; raises `UserError` where it could not be trained."""
        overrides = tuple(job)
        if overrides in self._planned:
            return self._planned[overrides]
        cfg = self.compose(overrides)
        run = config.parse(cfg)
        folder = self._folder_of(run, str(cfg.hydra.sweep.subdir))
        runs.check_folder(folder, run)
        if folder in self._names:
            first = " ".join(self._names[folder])
            raise UserError("sweep", f"{first} and {' '.join(overrides)} are the same run", "give it once")
        self._names[folder] = overrides
        planned = Planned(overrides, run, folder, why_not(run))
        self._check(planned)
        self._planned[overrides] = planned
        return planned

    def restage(self, planned: Planned, stage: str) -> Planned:
        """The same run, for another stage of a tuning. A run is the same whatever it is for."""
        overrides = (*(o for o in planned.overrides if not o.startswith("stage=")), f"stage={stage}")
        again = replace(planned, overrides=overrides, run=replace(planned.run, stage=stage))
        self._planned[overrides], self._names[planned.folder] = again, overrides
        return again

    def _folder_of(self, run: TrainConfig, subdir: str) -> Path:
        """A run's folder: the one it has already, if it was written in another way then."""
        tail = config.fingerprint(run)[:8]
        if subdir.endswith(tail):
            subdir = self._there.get(tail, subdir)
        return self.folder / subdir

    @functools.cached_property
    def _there(self) -> dict[str, str]:
        """Folders of the sweep by the hash their names end with."""
        found = {}
        for file in self.folder.glob("*/run.json"):
            found[file.parent.name[-8:]] = file.parent.name
        return found

    def _check(self, planned: Planned) -> None:
        """Data, network and device once for all runs that share them, the optimizer's settings likewise."""
        run = planned.run
        shared = repr((run.data, run.model, run.batch_size, run.drop_last, run.dtype, run.device))
        if shared not in self._checked:
            train.prepare(run)
            self._checked.add(shared)
        # Our own rules were checked with the configuration; others are tried out.
        optimizer = repr(run.optimizer)
        if (planned.alone or run.optimizer.name not in RULES) and optimizer not in self._checked:
            check_optimizer(run.optimizer)
            self._checked.add(optimizer)

    def compose(self, job: Sequence[str], number: int = 0) -> DictConfig:
        """The configuration of a run. It is valid until the next call, which may change it.

        Raises Hydra's and OmegaConf's errors.
        """
        parsed = [self._parsed(override) for override in job]
        plain = [override for override in parsed if self._is_plain(override)]
        files = tuple(override.input_line for override in parsed if override not in plain)
        key = files, tuple(override.key_or_group for override in plain)
        cfg = self._composed.get(key)
        if cfg is None:
            self._composed[key] = cfg = self.loader.load_sweep_config(self.master, list(job))
        else:
            try:
                for override in plain:
                    OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
            except OmegaConfBaseException:
                return self.loader.load_sweep_config(self.master, list(job))  # whose error says more
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            hydra, task = cfg.hydra, [override for override in parsed if not override.is_hydra_override()]
            hydra.overrides.task = [override.input_line for override in task]
            hydra.job.override_dirname = get_overrides_dirname(task, **hydra.job.config.override_dirname)
            hydra.job.id = hydra.job.num = number
            if str(hydra.sweep.dir) != str(self.folder):
                hydra.sweep.dir = str(self.folder)
        return cfg

    def _is_plain(self, override: Override) -> bool:
        """Whether an override sets one value that is there already, and chooses no file."""
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.is_hydra_override()
            and not self._is_group(override.key_or_group)
            and isinstance(override.value(), (bool, int, float, str, type(None), list))
        )


def show_status(folder: Path, plans: Sequence[Planned]) -> None:
    """Print how every run of a sweep stands. Trains and creates nothing."""
    rows = []
    for planned in plans:
        name = " ".join(o for o in planned.overrides if not o.startswith(("name=", "status=", "+tune=")))
        status = runs.status_of(planned.folder)
        if status in ("begun", "interrupted") and runs.holder(planned.folder):
            status = "running"
        rows.append((name, status, runs.read_summary(planned.folder)))
    console.show_status(rows, folder, runs.holder(folder))


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
                raise UserError(key, f"{repeated} is there twice", "give each value once")
            if not values or "" in values:
                raise UserError(key, "an empty value is to be swept", "give values between the commas")
            total *= len(values)
    if total > limit:
        raise UserError("max_runs", f"the sweep has {total:,} runs, the limit is {limit:,}", "raise max_runs")
    return BasicSweeper.split_arguments(list(overrides), max_batch_size=None)[0]


def _length(steps: RangeSweep) -> int:
    """Number of values of a range(start, stop, step)."""
    if steps.start is None or steps.stop is None:
        return 0
    return math.ceil((steps.stop - steps.start) / steps.step)
