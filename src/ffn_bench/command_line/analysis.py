"""What the commands that analyse runs share: their arguments, where their files go, how figures are drawn."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from ffn_bench import errors
from ffn_bench.command_line.invocation import command_name
from ffn_bench.command_line.start import one_line_errors, run
from ffn_bench.configuration import parsing
from ffn_bench.run_folder import finding, folders
from ffn_bench.run_folder.files import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
    parsing.register_command(name, node)
    typed = shlex.join([command_name(), *sys.argv[1:]])

    def handed(cfg: DictConfig) -> None:
        with one_line_errors(command_name()):
            task(cfg, typed)

    with one_line_errors(command_name()):
        if {"-m", "--multirun"} & set(sys.argv):
            raise errors.UserError("-m", "there is nothing to sweep", f"write {several}")
        sys.argv[1:] = [rewrite(argument) for argument in sys.argv[1:]]
    run(name, node, handed)


# --- arguments ------------------------------------------------------------------------------------------


def words(value: str | list[str] | None) -> list[str]:
    """A word or a list of words, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def comma_list(argument: str, *keys: str) -> str:
    """`key=a,b` as Hydra writes a list, `key=[a,b]`, for some keys."""
    return re.sub(rf"^({'|'.join(keys)})=([\w./]+(?:,[\w./]+)+)$", r"\1=[\2]", argument)


def quote(argument: str) -> str:
    """Quote a path in `runs=…`, `run=…`, `save=…` and the like: it may hold what Hydra reads otherwise. Not a
    list."""
    match = re.fullmatch(r"(runs?|save|out|to|data\.path)=([^\['\"].*)", argument)
    if not match or match[2] == "null":
        return argument
    key, text = match[1], match[2]
    paths = text.split(",")
    several = key in ("run", "runs") and len(paths) > 1 and not finding.matching(text)
    quoted = ["'" + path.replace("'", "\\'") + "'" for path in (paths if several else [text])]
    return f"{key}=[{','.join(quoted)}]" if several else f"{key}={quoted[0]}"


def check_one_run(given: DictConfig) -> None:
    """Raise `UserError` where `run=` names several runs."""
    if isinstance(given.get("run"), ListConfig):
        what = f"names {len(given.run)} runs, and one is meant"
        raise errors.UserError("run", what, "write a command for each")


# --- where files go -------------------------------------------------------------------------------------


MAX_NAME = 200
"""Bytes of a file's name at most; a temporary name is longer, and file systems take 255."""


def report_folder(save: str | None, default: Folder) -> Folder:
    """The folder that a command's files go to: `save`, else `default`. Nothing is created.

    Raises `UserError`: status 4 where files cannot be written there.
    """
    if save is not None and not save.strip():
        raise errors.UserError("save", "is empty", "name a folder")
    folder = default if save is None else Folder(Path(save))
    try:
        folders.check_writable(folder.path)
    except errors.UserError as e:
        raise errors.UserError(e.where, e.what, "name another with save=…", e.status) from e
    folder.check_manifest()
    return folder


def output_file(path: str, key: str) -> tuple[Folder, str]:
    """The folder and the name of a file that a person has named with a key. Nothing is created.

    Raises `UserError`: status 4 where it cannot be written, or would replace a file that is not ours.
    """
    if not path.strip():
        raise errors.UserError(key, "is empty", "name a file")
    folder, name = Folder(Path(path).parent), Path(path).name
    if name in ("", ".."):
        raise errors.UserError(path, "is a folder", f"name a file: {key}=…", errors.RUN_FOLDER)
    if len(os.fsencode(name)) > MAX_NAME:
        raise errors.UserError(name[:80] + "…", "is too long", "use a shorter name", errors.RUN_FOLDER)
    try:
        name.encode()
    except UnicodeEncodeError as e:
        raise errors.UserError(name, "is not UTF-8", "use another name", errors.RUN_FOLDER) from e
    try:
        folders.check_writable(Path(path).parent)
        folder.check_manifest()
        folder.check_output(name)
    except errors.UserError as e:
        raise errors.UserError(e.where, e.what, f"name another with {key}=…", e.status) from e
    return folder, name


@contextmanager
def writing(folder: Folder, key: str = "save") -> Iterator[None]:
    """What a disk refuses while a report is written, as a `UserError`: status 5 where it is full, else 4."""
    try:
        yield
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        status = errors.RESOURCE if e.errno == errno.ENOSPC else errors.RUN_FOLDER
        what = f"cannot be written ({reason})"
        raise errors.UserError(str(folder), what, f"name another with {key}=…", status) from e


def say_renamed(console: Console, written: Mapping[str, str]) -> None:
    """Say which files of a report were renamed because a file that is not ours had their name."""
    from rich.text import Text

    if moved := {name: other for name, other in written.items() if name != other}:
        (name, other), *others = moved.items()
        suffix = f"; {len(others)} more in the same way" if others else ""
        line = (
            f"{name} exists and was not written by ffn-bench: it is kept, and the new file is {other}{suffix}"
        )
        console.print(Text(f"  note         {line}", style="yellow"), soft_wrap=True)


# --- figures --------------------------------------------------------------------------------------------


def render(console: Console, figures: Mapping[str, Figure], command: str) -> dict[str, bytes]:
    """Each figure as PNG and as SVG, by the names of the files, with the command that made them inside.

    Every other one is drawn by another core, if there is one.
    """
    from ffn_bench.command_line.beside import beside
    from ffn_bench.command_line.console import progress

    contents = {f"{name}.{kind}": b"" for name in figures for kind in ("png", "svg")}  # their order
    names = [*figures]
    with (
        beside(lambda: files_of(figures, names[1::2], command)) as others,
        progress(console, "drawing", len(names)) as on_progress,
    ):
        for number, name in enumerate(names[::2], 1):
            contents |= files_of(figures, [name], command)
            on_progress(2 * number - 1)
        contents |= others()
    return contents


def files_of(figures: Mapping[str, Figure], names: Sequence[str], command: str) -> dict[str, bytes]:
    """The files of some of the figures, as `render` returns them."""
    from ffn_bench import plot_style

    contents: dict[str, bytes] = {}
    for name in names:
        contents[f"{name}.png"], contents[f"{name}.svg"] = plot_style.save(figures[name], command)
    return contents


def for_tensorboard(contents: Mapping[str, bytes], step: int) -> dict[str, bytes]:
    """An event file with the PNGs among some files, for TensorBoard's Images, by its name."""
    from ffn_bench.run_folder import writers

    pictures = {name: content for name, content in contents.items() if name.endswith(".png")}
    return {writers.event_name(): writers.of_pictures(pictures, step)}
