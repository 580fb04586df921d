"""Hydra without work whose outcome is known or that nobody looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffn_bench.command_line.hydra_internals import Hydra
from ffn_bench.command_line.plugin_packages import import_late


class _OnDemand:
    """Text that is worked out when somebody reads it."""

    def __init__(self, text: Callable[[], str]) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text()


class QuickHydra(Hydra):
    """Hydra's application object, which composes a configuration once. Its loader is our `Loader`."""

    config_loader: Any

    def get_mode(self, config_name: str | None, overrides: list[str]) -> Any:
        """`hydra.mode`, for which Hydra composes the configuration one more time."""
        if self.config_loader.leaves_mode_open(config_name, overrides):
            return None
        return super().get_mode(config_name, overrides)

    def _print_plugins(self) -> None:
        """All plug-ins, for --info."""
        import_late()
        super()._print_plugins()

    def format_config_groups(self, predicate: Callable[[str], bool], compact: bool = True) -> Any:
        """All groups and their options, for a template of --help; ours does not name them."""
        groups = super().format_config_groups
        return _OnDemand(lambda: groups(predicate, compact))
