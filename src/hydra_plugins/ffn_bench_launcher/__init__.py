"""The launcher of `ffn-train -m`. Hydra finds launchers in `hydra_plugins` only; ffn_bench.sweep works."""

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

ConfigStore.instance().store(
    group="hydra/launcher",
    name="sequential",
    node={"_target_": "hydra_plugins.ffn_bench_launcher.SequentialLauncher"},
    provider="ffn_bench",
)


class SequentialLauncher(Launcher):
    """Checks every run of a sweep before anything is created, then trains one after the other."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep's folder exists."""
        from ffn_bench import sweep

        self.config, self.context = config, hydra_context
        # Other sweepers choose their runs as they go; theirs are checked one by one.
        basic = config.hydra.sweeper._target_.endswith("BasicSweeper")
        self.planned = sweep.plan(config, hydra_context) if basic else {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train the runs; one `JobReturn` each."""
        from ffn_bench import sweep

        return sweep.launch(self.config, self.context, job_overrides, initial_job_idx, self.planned)
