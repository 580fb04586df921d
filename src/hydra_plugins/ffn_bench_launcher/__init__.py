"""The sweeper and launchers of `ffn-train -m`. Hydra finds them in `hydra_plugins` only; ffn_bench works."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

HERE = "hydra_plugins.ffn_bench_launcher"
for group, name, node in (
    ("sweeper", "checked", {"_target_": f"{HERE}.CheckedSweeper", "max_batch_size": None, "params": None}),
    ("launcher", "batched", {"_target_": f"{HERE}.BatchedLauncher"}),
    ("launcher", "sequential", {"_target_": f"{HERE}.SequentialLauncher"}),
):
    ConfigStore.instance().store(group=f"hydra/{group}", name=name, node=node, provider="ffn_bench")


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, which checks every run before anything is created and composes none twice."""

    def sweep(self, arguments: list[str]) -> Any:
        """Check every combination, then hand all of them to the launcher."""
        from ffn_bench import runs

        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        folder = Path(str(self.config.hydra.sweep.dir))
        if self.config.force and not self.config.status and any(folder.glob("*/run.json")):
            folder = runs.another_folder(folder)
            self.config.hydra.sweep.dir = str(folder)
        runs.check_folder(folder, None)
        if not self.config.status:
            runs.check_free(folder)
        from ffn_bench import plan  # which needs PyTorch

        planner = plan.Planner(self.config, self.hydra_context)
        plans = [planner.plan(job) for job in plan.jobs_of(overrides, int(self.config.max_runs))]
        if self.config.status:
            plan.show_status(folder, plans)
            return []
        lock = runs.Lock(folder)
        try:
            if isinstance(self.launcher, BatchedLauncher):
                self.launcher.planner = planner
            return super().sweep(arguments)
        finally:
            lock.release()

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: `sweep` has composed and checked every run."""


class BatchedLauncher(Launcher):
    """Trains the runs of a sweep side by side in the batched engine; those it cannot take, one by one."""

    batched = True
    planner: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep's folder exists."""
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the runs; one `JobReturn` each. Other sweepers than ours choose their runs as they go."""
        from ffn_bench import plan, sweep

        planner = self.planner or plan.Planner(self.config, self.context)
        return sweep.launch(planner, self.context, job_overrides, initial_job_idx, self.batched)


class SequentialLauncher(BatchedLauncher):
    """Trains one run after the other in the eager engine."""

    batched = False
