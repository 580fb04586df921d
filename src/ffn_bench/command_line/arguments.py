"""What a person typed, checked before Hydra composes it: flags and keys. `composition` checks the rest."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ffn_bench.configuration.schema import GROUPS
from ffn_bench.errors import UserError


def prepare(argv: Sequence[str]) -> list[str]:
    """The command line for Hydra: `optimizer.lr` becomes `lr`, which is the same setting, and
    `+tune=…` needs no `-m`.

    Raises `UserError` for an unknown flag and for keys that cannot be set.
    """
    # argparse does not find a flag behind settings
    argv = sorted(argv, key=lambda a: a not in ("-m", "--multirun"))
    known = _parse_flags(argv)
    if known.experimental_rerun:
        raise UserError(
            "--experimental-rerun", "loads a pickle, which can execute any code", "give the settings"
        )
    if known.config_path is not None and not Path(known.config_path).is_absolute():
        what = f"{known.config_path!r} is not an absolute path, and Hydra would look for a Python package"
        raise UserError("--config-path", what, f"write {Path(known.config_path).absolute()}")
    if known.resolve and not (known.cfg or known.help):
        raise UserError("--resolve", "needs --cfg or --help", "add one of them")
    if known.multirun and (known.cfg or known.info):
        flag = "--cfg" if known.cfg else "--info"
        raise UserError(flag, "shows one run, but -m starts several", f"leave out -m, or {flag}")
    for argument in argv:
        null = re.fullmatch(r"[+]*([\w/]+)=null", argument)
        if null and null[1].partition("/")[0] in (*GROUPS, "experiment", "tune", "hydra"):
            raise UserError(null[1], "cannot be null", "choose an option, or leave it out")
    torch_by_name = any(re.match(r"optimizer=.*\btorch\b", o) for o in known.overrides)
    for override in known.overrides:
        key = re.sub(r"^[+~]*", "", override).partition("=")[0]
        if not key:
            raise UserError(override or "''", "has no key", "write key=value")
        group = key.removesuffix(".name")
        if group != key and group in GROUPS and not (group == "optimizer" and torch_by_name):
            raise UserError(key, "is set by the choice of the group", f"write {group}=…")
    keys = [re.sub(r"^[+~]*", "", o).partition("=")[0] for o in known.overrides]
    if "lr" in keys and "optimizer.lr" in keys:
        raise UserError("optimizer.lr", "is the same setting as lr, which is also given", "give one of them")
    other = known.cfg or known.info or known.shell_completion or known.help or known.hydra_help or known.run
    if not (known.multirun or other) and any(o.startswith("+tune=") for o in known.overrides):
        argv = ["-m", *argv]  # conf/tune says so too, which Hydra does not hear where another key is wrong
    return [re.sub(r"^(\+*)optimizer\.lr=", "lr=", argument) for argument in argv]


def _parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    from ffn_bench.command_line.hydra_internals import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError("command line", message, "see --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse would print a page of usage
    known, unknown = parser.parse_known_args(list(argv))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise UserError(unknown[0], "no such flag", f"settings are written {name.replace('-', '_')}=value")
    return known
