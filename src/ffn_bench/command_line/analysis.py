"""What the commands that analyse runs share: words, paths, and how their reports are told of."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from ffn_bench import errors
from ffn_bench.command_line.invocation import command_name
from ffn_bench.command_line.start import one_line_errors, run
from ffn_bench.configuration import parsing

if TYPE_CHECKING:
    from rich.console import Console


def run_analysis(
    name: str,
    node: type,
    task: Callable[[DictConfig, str], Any],
    rewrite: Callable[[str], str],
    several: str,
) -> None:
    """`run` for a command that sweeps over nothing: conf/<name>.yaml, whose keys `node` types.

    `task` is also handed the command as it was typed; every argument goes through `rewrite` first; `several`
    says what to write instead of `-m`.
    """
    ConfigStore.instance().store(group="_schema", name=name, node=parsing.untyped(node), package="_global_")
    typed = shlex.join([command_name(), *sys.argv[1:]])

    def handed(cfg: DictConfig) -> None:
        with one_line_errors(command_name()):
            task(cfg, typed)

    with one_line_errors(command_name()):
        if {"-m", "--multirun"} & set(sys.argv):
            raise errors.UserError("-m", "there is nothing to sweep", f"write {several}")
        sys.argv[1:] = [rewrite(argument) for argument in sys.argv[1:]]
    run(name, node, handed)


def words(value: str | list[str] | None) -> list[str]:
    """A word or a list of words, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def tell_moved(console: Console, written: Mapping[str, str]) -> None:
    """Say which files of a report went to another name, theirs being taken by files that are not ours."""
    from rich.text import Text

    if moved := {name: other for name, other in written.items() if name != other}:
        (name, other), *more = moved.items()
        and_more = f"; {len(more)} more likewise" if more else ""
        line = f"{name} is there and is not ours: it stays, and ours is {other}{and_more}"
        console.print(Text(f"  note         {line}", style="yellow"), soft_wrap=True)


def quote(argument: str) -> str:
    """Quote a path in `runs=…`, `run=…` or `save=…`: it may hold what Hydra reads otherwise. Not a list."""
    from ffn_bench.run_folder.finding import matching

    match = re.fullmatch(r"(runs?|save)=([^\['\"].*)", argument)
    if not match or match[2] == "null":
        return argument
    key, text = match[1], match[2]
    parts = text.split(",")
    several = key != "save" and len(parts) > 1 and not matching(text)
    quoted = ["'" + part.replace("'", "\\'") + "'" for part in (parts if several else [text])]
    return f"{key}=[{','.join(quoted)}]" if several else f"{key}={quoted[0]}"
