"""What is relied on of Hydra's private names."""

from __future__ import annotations

import inspect
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
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


def test_hydra_makes_its_application_by_the_name_that_is_replaced() -> None:
    from hydra._internal.utils import _run_hydra

    assert vars(internals.hydra_module)["Hydra"] is internals.Hydra
    assert "from .hydra import Hydra" in inspect.getsource(_run_hydra)
    assert "get_mode(config_name=config_name, overrides=overrides)" in inspect.getsource(_run_hydra)


def test_a_mode_that_is_none_is_that_of_the_flags() -> None:
    from hydra._internal.utils import _run_app

    text = inspect.getsource(_run_app)
    assert "if mode is None:" in text and '["hydra.mode=RUN"]' in text and '["hydra.mode=MULTIRUN"]' in text


def test_lists_of_groups_are_for_templates_only() -> None:
    text = inspect.getsource(internals.Hydra)
    uses = [line.strip() for line in text.splitlines() if "format_config_groups(" in line]
    assert len(uses) == 3 and all("GROUPS=" in line or line.startswith("def ") for line in uses)
    assert "substitute(" in text


def test_plugins_are_printed_by_what_is_replaced() -> None:
    for method in (internals.Hydra._print_all_info, internals.Hydra._print_plugins_info):
        assert "self._print_plugins()" in inspect.getsource(method)


def test_plugins_are_scanned_as_is_assumed() -> None:
    assert [*inspect.signature(internals.scan_plugins).parameters] == ["modules"]
    text = inspect.getsource(internals.scan_plugins)
    assert text.count("pkgutil.") == 1 and "pkgutil.walk_packages(" in text
    assert vars(internals.plugins_module)["pkgutil"].walk_packages
    assert "self._scan_all_plugins(modules=" in inspect.getsource(internals.plugins_module.Plugins)
    _, stats = internals.scan_plugins([])
    assert stats.modules_import_time == {}


def test_the_store_copies_what_it_loads() -> None:
    """Sources that are shared between copies of a repository hand out nothing that can be changed."""
    from hydra.core.config_store import ConfigStore

    text = inspect.getsource(ConfigStore.load)
    assert "copy.copy(ret)" in text and "ret.node = copy.deepcopy(ret.node)" in text


def test_the_objects_of_which_a_process_has_one_are_made_anew_where_they_are_missing() -> None:
    before = internals.singletons().pop(HydraConfig, None)
    try:
        first = HydraConfig.instance()
        assert HydraConfig.instance() is first is internals.singletons()[HydraConfig]
    finally:
        internals.singletons().pop(HydraConfig)
        if before is not None:
            internals.singletons()[HydraConfig] = before


def test_a_search_path_is_that_of_hydra_main(tmp_path: Path) -> None:
    from hydra._internal.utils import create_automatic_config_search_path

    ours = internals.create_config_search_path(str(tmp_path))
    mains = create_automatic_config_search_path(__file__, None, str(tmp_path))
    assert [vars(e) for e in ours.get_path()] == [vars(e) for e in mains.get_path()]
