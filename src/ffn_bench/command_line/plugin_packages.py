"""Hydra's plug-ins: packages of launchers and sweepers are imported when a configuration names one.

Hydra imports every plug-in that is installed whenever a command starts. Ray's, Optuna's and submitit's take
100 ms, which --help, completion and a mistyped key would wait for. Other packages are imported as ever: they
may add search paths, or anything else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from hydra.core.plugins import Plugins

from ffn_bench.command_line.hydra_internals import plugins_module, scan_plugins

LATE = frozenset(
    f"hydra_plugins.{name}"
    for name in (
        "hydra_joblib_launcher", "hydra_optuna_sweeper", "hydra_ray_launcher", "hydra_submitit_launcher",
    )
)  # fmt: skip
"""Packages that offer options of `hydra/launcher` and `hydra/sweeper`, and nothing else."""
GROUPS = ("hydra/launcher", "hydra/sweeper")
EARLY = (
    {*GROUPS}
    | {f"{GROUPS[0]}/{name}" for name in ("basic", "workers", "sequential")}
    | {f"{GROUPS[1]}/{name}" for name in ("basic", "checked")}
)
"""Options of these groups that need no such package."""


def scan_early(modules: list[Any]) -> Any:
    """Stands for Hydra's scan: all plug-ins but those of `LATE`."""
    return _scan(modules, lambda name: name not in LATE)


def import_late() -> None:
    """Import the packages of `LATE` that are installed, unless Hydra knows them already."""
    plugins = Plugins.instance()
    stats = plugins.get_stats()
    assert stats is not None
    pending = LATE - stats.modules_import_time.keys()
    if pending:
        classes, more = _scan([importlib.import_module("hydra_plugins")], pending.__contains__)
        for kind in classes:
            plugins.register(kind)
        stats.modules_import_time |= more.modules_import_time


def _scan(modules: list[Any], is_wanted: Callable[[str], bool]) -> Any:
    """Hydra's scan of some packages. It finds them by `pkgutil.walk_packages`, which knows no exceptions."""

    def walk(path: Iterable[str], prefix: str, onerror: Any) -> Iterator[pkgutil.ModuleInfo]:
        for found in pkgutil.iter_modules(path, prefix):
            if is_wanted(found.name):
                yield found
                if found.ispkg:
                    with suppress(Exception):  # as `walk_packages` does; the scan has warned of it
                        package = importlib.import_module(found.name)
                        yield from pkgutil.walk_packages(package.__path__, f"{found.name}.", onerror)

    plugins_module.pkgutil = SimpleNamespace(walk_packages=walk)
    try:
        return scan_plugins(modules)
    finally:
        plugins_module.pkgutil = pkgutil
