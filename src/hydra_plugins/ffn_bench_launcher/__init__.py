"""The sweeper and launchers of `ffn-train -m`. Hydra finds them in `hydra_plugins` only; ffn_bench works."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ffn_bench.command_line.hydra_internals import BasicLauncher, BasicSweeper, raised
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

HERE = "hydra_plugins.ffn_bench_launcher"
TUNING = {
    "search": None,  # grid, random, optuna or none: conf/tune says which
    "trials": 25,
    "parallel_trials": 5,  # that Optuna gives at a time
    "space": None,  # instead of those in the optimizers' files
    "search_seed": 0,
    "tuning_seeds": [0],
    "final_seeds": [*range(1, 21)],
}
"""The keys of a tuning, see `ffn_bench.sweeps.tuning.Rules`."""
for group, name, node in (
    (
        "sweeper",
        "checked",
        {"_target_": f"{HERE}.CheckedSweeper", "max_batch_size": None, "params": None, **TUNING},
    ),
    ("launcher", "workers", {"_target_": f"{HERE}.WorkersLauncher"}),
    ("launcher", "sequential", {"_target_": f"{HERE}.SequentialLauncher"}),
):
    ConfigStore.instance().store(group=f"hydra/{group}", name=name, node=node, provider="ffn_bench")


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, which checks every run before anything is created and composes none twice.

    Where a search is asked for (+tune=…), it tunes.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: dict[str, str] | None = None, **tuning: Any
    ) -> None:
        super().__init__(max_batch_size, params)
        self.tuning = tuning
        self._given: list[str] = []
        self.shown: Any = None
        """How a sweep is shown; None: as the command does."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep. Raises `UserError` where the launcher's package is missing."""
        package, _, rest = str(config.hydra.launcher.get("_target_")).partition(".")
        plugin = f"{package}.{rest.partition('.')[0]}"
        if package == "hydra_plugins" and importlib.util.find_spec(plugin) is None:
            name = str(config.hydra.runtime.choices["hydra/launcher"])
            extra = "slurm" if "submitit" in name else name
            raise UserError("hydra/launcher", f"{name} is not installed", f"pip install 'ffn-bench[{extra}]'")
        if package == "hydra_plugins" and plugin != HERE:
            from ffn_bench.sweeps.launchers import train_job  # a launcher of others trains chunks of runs

            task_function = train_job
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if isinstance(self.launcher, BasicLauncher):  # Hydra's own writes through links
            self.launcher = SequentialLauncher()
            self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _parse_config(self) -> list[str]:
        """The sweep that a configuration file asks for, but for keys of the command line, which wins."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = {override.get_key_element() for override in parser.parse_overrides(self._given)}
        return [line for line in super()._parse_config() if line.partition("=")[0] not in given]

    def sweep(self, arguments: list[str]) -> Any:
        """Check every combination, then hand all of them to the launcher."""
        from ffn_bench.command_line import start
        from ffn_bench.configuration import parsing
        from ffn_bench.run_folder import folders
        from ffn_bench.run_folder.lock import check_free

        self._given = arguments

        assert self.config is not None
        assert self.hydra_context is not None
        parsing.check_plain_keys(self.config)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        if self.config.chunk_file:
            from ffn_bench.sweeps import launchers

            start.resume_collector()
            launchers.train_chunk(Path(self.config.chunk_file))
            return []
        folder = Path(str(self.config.hydra.sweep.dir))
        if self.config.force and not self.config.status and any(folder.glob("*/run.json")):
            folder = folders.next_free_folder(folder)
            self.config.hydra.sweep.dir = str(folder)
        folders.check_location(folder)
        if not self.config.status:
            check_free(Folder(folder))
        from ffn_bench.sweeps import planning

        start.resume_collector()
        planner = planning.Planner(self.config, self.hydra_context)
        if self.tuning.get("search"):
            return self._tune(planner, overrides)
        jobs = planning.jobs_of(overrides, int(self.config.max_runs))
        if self.config.status:
            planning.show_status(folder, jobs, map(planner.find, jobs))
            return []
        plans = [planner.plan(job) for job in jobs]
        return self._locked(planner, lambda: [self._launch(planner, plans, 0, self.shown)])

    def _locked(self, planner: Any, work: Callable[[], list[Sequence[JobReturn]]]) -> Any:
        """Take the sweep's folder, note the configuration there, and train."""
        from ffn_bench.run_folder.lock import Lock

        folder = Folder(planner.folder)
        planner.check_extends()
        lock = Lock(folder, shared=self._is_chunked())
        try:
            name = folder.put("multirun.yaml", OmegaConf.to_yaml(self.config).encode())
            if name != "multirun.yaml":
                note = "multirun.yaml exists and was not written by ffn-bench: it is kept"
                print(f"  note      {note}, and the new file is {name}")
            returns = work()
            for result in (result for some in returns for result in some):
                if result.status == JobStatus.FAILED:
                    raise raised(result)
            return returns
        finally:
            lock.release()

    def _is_chunked(self) -> bool:
        """Whether the launcher is one of others, whose jobs train chunks of runs."""
        return not isinstance(self.launcher, WorkersLauncher)

    def _launch(self, planner: Any, plans: Sequence[Any], first: int, shown: Any) -> Sequence[JobReturn]:
        """Train some runs with the launcher that was chosen."""
        assert self.launcher is not None
        assert self.config is not None
        overrides = [planned.overrides for planned in plans]
        if self._is_chunked():
            from ffn_bench.sweeps import launchers, sweep

            return launchers.launch(self.launcher, planner, overrides, first, shown or sweep.LaunchDisplay())
        assert isinstance(self.launcher, WorkersLauncher)
        self.launcher.planner, self.launcher.shown = planner, shown
        return self.launcher.launch(overrides, first)

    def _tune(self, planner: Any, overrides: list[Override]) -> Any:
        """Search, choose, and train the chosen and the default settings."""
        from ffn_bench.sweeps import tuning

        assert self.config is not None
        search = tuning.Tuning(planner, overrides, tuning.Rules(**self.tuning), int(self.config.max_runs))
        if self.config.status:
            search.show_status()
            return []
        return self._locked(planner, lambda: search.run(partial(self._launch, planner)))


class WorkersLauncher(Launcher):
    """Trains the runs of a sweep in worker processes, one a core; on a GPU side by side."""

    processes: int | None = None
    """None: one for each core."""
    planner: Any = None
    shown: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep's folder exists."""
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the runs; one `JobReturn` each. Other sweepers choose their runs one after another."""
        from ffn_bench.command_line import start
        from ffn_bench.run_folder import folders
        from ffn_bench.run_folder.lock import Lock
        from ffn_bench.sweeps import planning, sweep

        shown = self.shown or sweep.LaunchDisplay()
        if self.planner is not None:
            return sweep.launch(self.planner, job_overrides, initial_job_idx, self.processes, shown)
        for key in ("status", "force"):
            if self.config[key]:
                what = "cannot be used with this sweeper, which chooses its runs one after another"
                raise UserError(key, what, "leave it out, or use +tune=optuna")
        start.resume_collector()
        planner = planning.Planner(self.config, self.context)
        folders.check_location(planner.folder)
        lock = Lock(Folder(planner.folder))
        try:
            return sweep.launch(planner, job_overrides, initial_job_idx, self.processes, shown)
        finally:
            lock.release()


class SequentialLauncher(WorkersLauncher):
    """Trains one run after the other, in the process that sweeps."""

    processes = 0
