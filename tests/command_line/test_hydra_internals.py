"""What is relied on of Hydra's private names."""

from __future__ import annotations

import inspect

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper

from ffn_bench.command_line import hydra_internals as internals


def test_hydra_makes_its_loader_by_the_name_that_is_replaced() -> None:
    assert vars(internals.hydra_module)["ConfigLoaderImpl"] is internals.ConfigLoaderImpl
    assert "ConfigLoaderImpl(" in inspect.getsource(internals.hydra_module)


def test_the_loader_has_what_ours_overrides() -> None:
    given = inspect.signature(internals.ConfigLoaderImpl.load_configuration).parameters
    assert [*given][1:] == [
        *("config_name", "overrides", "run_mode", "from_shell", "validate_sweep_overrides"),
    ]


def test_basic_plugins_are_plugins() -> None:
    assert issubclass(internals.BasicSweeper, Sweeper)
    assert issubclass(internals.BasicLauncher, Launcher)


def test_a_failed_job_holds_what_it_raised() -> None:
    error = ValueError("no")
    result = JobReturn()
    result.return_value = error
    assert internals.raised(result) is error


def test_names_of_overrides() -> None:
    overrides = OverridesParser.create().parse_overrides(["lr=0.1", "seed=2"])
    name = internals.get_overrides_dirname(overrides, ["seed"], ",", "=")
    assert name == "lr=0.1"
