"""What every command shares: where the YAML files are, how Hydra is started, how mistakes are reported."""

from __future__ import annotations

import gc
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ffn_bench import __version__, guest, process
from ffn_bench.command_line import arguments, composition, mistakes, resolvers
from ffn_bench.command_line.invocation import command_name
from ffn_bench.configuration import parsing
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.data.kept import loaded_once


def run(config_name: str, node: type, task: Callable[[DictConfig], Any]) -> None:
    """Compose conf/<config_name>.yaml, whose keys `node` types, with the command line and hand it to `task`.

    A mistake ends it all.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then re-raises, and one_line_errors says it in one line
    process.listen()
    with one_line_errors(command_name()), process.checked_output(), collector_put_off():
        if "--version" in sys.argv[1:]:
            print(f"ffn-bench {__version__}")
            sys.exit(0)
        parsing.register()
        resolvers.register_resolvers()
        OmegaConf.register_new_resolver("config_groups", config_groups, replace=True)
        sys.argv[1:] = arguments.prepare(sys.argv[1:])
        parsing.offer_optimizers(partial(offered_optimizers, sys.argv[1:]))
        decorate = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
        with composition.guarded(node), loaded_once():
            decorate(task)()


@contextmanager
def collector_put_off() -> Iterator[None]:
    """Collect no garbage until `resume_collector`: importing torch and its friends makes none, and looking
    for it takes 0.5 s. Afterwards all is as it was (bindings complain of what is still frozen at the end)."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def resume_collector() -> None:
    """For a command that trains, once all is imported, which stays: the collector need not walk through it
    again and again. What another program has imported is not ours."""
    if guest.is_guest():
        return
    gc.freeze()
    gc.enable()


def offered_optimizers(argv: list[str]) -> dict[str, dict[str, Any]]:
    """The optimizers of other installed packages, which become options of the group `optimizer`.

    Only one that the command line names is imported, to learn its hyper-parameters; others have none.
    """
    import importlib.metadata

    plugins: dict[str, dict[str, Any]] = {}
    for entry in importlib.metadata.entry_points(group="ffn_bench.optimizers"):
        plugins[entry.name] = {}
        if any(entry.name in argument for argument in argv):
            from ffn_bench.optimizers.registry import plugin_defaults

            plugins[entry.name] = plugin_defaults(entry.name)
    return plugins


def config_groups() -> str:
    """The groups and their options, a line each, for --help."""
    lines = []
    for group in ("data", "model", "optimizer", "schedule", "loss", "experiment", "tune"):
        folder = config_folder() / group
        options = sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))
        lines += textwrap.wrap(
            " ".join(options), 92, initial_indent=f"{group:<12}", subsequent_indent=" " * 12
        )
    return "\n".join(lines)


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """A person's mistake becomes one line and an exit status; a bug keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        process.tell(signal.SIGINT)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        mistake = mistakes.explain(error)
        if mistake is None:
            raise
        print(f"{command}: error: {mistake}", file=sys.stderr)
        process.hush()
        sys.exit(mistake.status)
