"""What is used of Hydra that is not its public interface.

tests/command_line/test_hydra_internals.py says what is relied on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import hydra._internal.hydra
import hydra.core.plugins
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

if TYPE_CHECKING:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

__all__ = [
    "BasicLauncher",
    "BasicSweeper",
    "Callbacks",
    "ConfigLoaderImpl",
    "ConfigRepository",
    "FileConfigSource",
    "Hydra",
    "IConfigRepository",
    "SourcesRegistry",
    "create_config_search_path",
    "get_args_parser",
    "get_overrides_dirname",
    "hydra_module",
    "plugins_module",
    "raised",
    "scan_plugins",
    "singletons",
]

PLUGINS = {
    "BasicLauncher": "hydra._internal.core_plugins.basic_launcher",
    "BasicSweeper": "hydra._internal.core_plugins.basic_sweeper",
}
"""Classes that Hydra defines anew when it looks for plugins: they are imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in PLUGINS:
        return getattr(importlib.import_module(PLUGINS[name]), name)
    raise AttributeError(name)


hydra_module = hydra._internal.hydra
"""Where Hydra looks for the class of its loader, and its own."""

plugins_module: Any = hydra.core.plugins
"""Where Hydra walks through packages of plug-ins, by `pkgutil.walk_packages`."""
scan_plugins = Plugins._scan_all_plugins
"""Imports all plug-ins below some packages; returns their classes and `ScanStats`."""


def raised(result: JobReturn) -> BaseException:
    """What a failed job raised; `return_value` would print a line of its own."""
    error: BaseException = result._return_value
    return error


def singletons() -> dict[type, Any]:
    """Hydra's objects of which a process has one, by their classes. Jobs of launchers put another dictionary
    in its place."""
    return Singleton._instances
