"""`ffn-train` inside another program: the same checks and the same composition, and afterwards the process is
as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hydra import version
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from ffn_bench import guest
from ffn_bench.command_line import arguments, composition, mistakes, resolvers, start
from ffn_bench.command_line.hydra_internals import Callbacks, create_config_search_path, singletons
from ffn_bench.command_line.quick_hydra import QuickHydra
from ffn_bench.configuration import parsing
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.kept import loaded_once

COMMAND, TASK = "ffn-train", "train"
"""Its name, and Hydra's for what it does."""

_turn = threading.Lock()
"""Hydra, OmegaConf and a command's data are one a process: calls of several threads take turns."""


@contextmanager
def command(
    overrides: Sequence[str], sweeps: bool, given: Any = None
) -> Iterator[tuple[DictConfig, HydraContext]]:
    """What `ffn-train` composes of some overrides, and Hydra's context, within which the command works.

    `given` are rows that nothing can load. Every mistake, of what is done within, too, is a `UserError`.
    """
    prepared = arguments.prepare(overrides)
    with (
        _turn,
        _mistakes_explained(),
        guest.visit([COMMAND, *["-m"] * sweeps, *prepared]),
        _hydra_apart(),
        composition.guarded(TrainConfig),
        loaded_once(given),
    ):
        parsing.register()
        resolvers.register_resolvers()
        OmegaConf.register_new_resolver("config_groups", start.config_groups, replace=True)
        parsing.offer_optimizers(partial(start.offered_optimizers, prepared))
        version.setbase("1.3")
        search_path = create_config_search_path(str(config_folder()))
        hydra = QuickHydra(TASK, composition.Loader(search_path, TrainConfig))
        mode = RunMode.MULTIRUN if sweeps else RunMode.RUN
        cfg = hydra.compose_config("config", [*prepared, f"hydra.mode={mode.name}"], mode)
        yield cfg, HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())


def sweeper(cfg: DictConfig, context: HydraContext) -> Any:
    """The sweeper that a configuration names. Its launchers train by themselves and never call a task."""
    return Plugins.instance().instantiate_sweeper(
        config=cfg, hydra_context=context, task_function=lambda cfg: None
    )


def task_overrides(cfg: DictConfig) -> list[str]:
    """The overrides that a configuration was composed of, as they were given: `\\${` in them stays text."""
    return OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)  # type: ignore[return-value]


@contextmanager
def _mistakes_explained() -> Iterator[None]:
    """What Hydra and OmegaConf raise for a person's mistake, as our own exception; a bug stays what it is."""
    try:
        yield
    except Exception as error:
        mistake = mistakes.explain(error)
        if mistake is None or mistake is error:
            raise
        raise mistake from None  # Hydra's own traceback says nothing more


@contextmanager
def _hydra_apart() -> Iterator[None]:
    """Give Hydra other objects than those of the program: its store without what the program keeps there."""
    kinds = (ConfigStore, HydraConfig, JobRuntime, version.VersionBase)
    before: dict[type, Any] = {kind: singletons().pop(kind) for kind in kinds if kind in singletons()}
    own = ConfigStore.instance()
    own.repo = {name: node for name, node in before[ConfigStore].repo.items() if name in HYDRAS_OWN}
    try:
        yield
    finally:
        for kind in kinds:
            singletons().pop(kind, None)
        singletons().update(before)


HYDRAS_OWN = ("hydra", "hydra_config.yaml", "_dummy_empty_config_.yaml")
"""What Hydra and its plug-ins keep in the store."""
