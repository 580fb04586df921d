"""A user's mistake as one line: where it is, what it is, what to do.

`UserError` is raised by our own checks. `explain` turns what Hydra, OmegaConf and YAML raise for a person's
mistake into the same form, and returns None for anything else, which is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

CONFIGURATION, DATA, RUN_FOLDER, RESOURCE = 2, 3, 4, 5
"""Exit statuses: configuration, data, run folder, and disk, memory or device."""


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""Faults of the disk and of its limits, which a bug does not cause."""


class UserError(Exception):
    """A person's mistake: `where` it is, `what` it is, what to do (`todo`), and the exit `status`."""

    def __init__(self, where: str, what: str, todo: str = "", status: int = CONFIGURATION) -> None:
        super().__init__(where, what, todo, status)
        self.where, self.what, self.todo, self.status = where, what, todo, status

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.what}" + (f"; {self.todo}" if self.todo else ""))


def printable(text: str) -> str:
    """Text of anywhere as one line that every terminal, file and font takes: `\\n` for a line feed, `\\x1b`.

    A file's name, a label or a cell may hold controls, marks that turn the direction of writing, lone
    surrogates. Different texts stay different unless they were written to look alike.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(text: str, longest: int) -> str:
    """The same, cut where it is longer: a label in a picture."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'adam'?)`, or nothing where no known name is close."""
    lower = {k.lower(): k for k in known}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), list(lower), n=1)]
    return f" (did you mean {close[0]!r}?)" if close else ""


def explain(error: BaseException) -> UserError | None:
    """What a person did wrong, told from an exception of Hydra, OmegaConf or YAML; None for a bug."""
    import yaml
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException):
        return _missing_option(error.missing_cfg_file or "", error.options or (), str(error))
    if isinstance(error, OverrideParseException):
        return _bad_override(error.override, str(error))
    if isinstance(error, OmegaConfBaseException):
        return _bad_value(error)
    if isinstance(error, RecursionError):
        return UserError("configuration", "something in it refers to itself", "look at the defaults lists")
    if isinstance(error, yaml.MarkedYAMLError):
        return yaml_error(error)
    if isinstance(error, HydraException):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError)):
            return explain(cause)
        return _composition(str(error))
    return of_resources(error)


def of_resources(error: BaseException) -> UserError | None:
    """What the system lacks, told from an exception: memory, room, descriptors, a working folder."""
    if is_memory_error(error):
        told = str(error).partition("DefaultCPUAllocator: ")[2] or str(error) or "there is not enough"
        return UserError("memory", _first_line(told), "use a smaller network or less data", RESOURCE)
    if isinstance(error, OSError) and error.errno in DISK:
        todo = "make room and run again"
        return UserError(str(error.filename or "disk"), str(error.strerror).lower(), todo, RESOURCE)
    if isinstance(error, FileNotFoundError) and not _is_somewhere():
        return UserError("working directory", "has been deleted", "change to one that is there", RUN_FOLDER)
    return None


def _is_somewhere() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


NO_MEMORY = re.compile(
    "DefaultCPUAllocator|failed to map segment|cannot allocate memory|can't start new thread", re.I
)
"""What PyTorch, the linker and the interpreter say where memory or its limits are too small."""


def is_memory_error(error: BaseException) -> bool:
    """Whether memory, the CPU's or a GPU's, was too small. PyTorch tells of the CPU's by a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, ImportError)) and bool(NO_MEMORY.search(str(error)))


def _missing_option(path: str, options: Iterable[str], message: str) -> UserError:
    group, _, option = path.rpartition("/")
    if not group:
        return UserError(path or "--config-name", _first_line(message), "name a file that is there")
    if not option:
        return UserError(group, "is empty", f"use one of: {', '.join(options)}")
    choices = sorted(options)
    todo = f"use one of: {', '.join(choices)}" if choices else "see --help"
    return UserError(group, f"{option!r} is not known{nearest(option, choices)}", todo)


def _bad_override(override: str, message: str) -> UserError:
    if not re.match(r"[+~]*[\w./@-]+=", override) and not override.startswith("~"):
        return UserError(override or "''", "is not an override", "write key=value, such as lr=0.01")
    reason = _first_line(message).partition(" expecting ")[0]
    return UserError(override, f"cannot be read ({reason})", "quote special characters: 'key=\"…\"'")


def _bad_value(error: BaseException) -> UserError:
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationResolutionError,
        UnsupportedInterpolationType,
    )

    key = str(getattr(error, "full_key", "") or "")
    what = _first_line(str(getattr(error, "msg", "") or error))
    if isinstance(error, UnsupportedInterpolationType):
        from ffn_bench.composition import unlisted

        return unlisted(what.rpartition(" ")[2], key)
    if isinstance(error, InterpolationResolutionError):
        return UserError(
            key or "configuration", f"an interpolation fails: {what}", "name a key that is there"
        )
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        parent = getattr(error, "parent_node", None)
        known = [str(k) for k in parent] if parent is not None and hasattr(parent, "keys") else []
        known = [k for k in known if k != "hydra"]
        leaf = str(getattr(error, "key", "") or key)
        prefix = key[: -len(leaf)] if key.endswith(leaf) else ""
        if key.startswith("optimizer.options"):
            return UserError(key, "is not there yet", f"write +{key}=…")
        return UserError(
            key or leaf,
            f"no such key{nearest(leaf, known)}",
            f"keys here: {', '.join(prefix + k for k in known)}" if known else "see --help",
        )
    return UserError(key or "configuration", what[:1].lower() + what[1:], "see --help")


def _composition(message: str) -> UserError:
    line = _first_line(message)
    if match := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", line):
        key, value = match.groups()
        return UserError(
            key, f"{value!r} are several values", f"add -m to sweep over them, or write {key}=[…]"
        )
    if match := re.match(r"Could not override '(.+)'\.", line):
        return UserError(match[1], "no such key or group", "see --help")
    return UserError("configuration", line[:1].lower() + line[1:], "see --help")


def yaml_error(error: Exception) -> UserError:
    """A fault in a YAML file, with its file, line and column."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "YAML"
    return UserError(place, _first_line(str(getattr(error, "problem", None) or error)), "mend the file")


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "cannot be read"
