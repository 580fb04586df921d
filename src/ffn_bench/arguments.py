"""What a person typed, checked before Hydra composes it: flags, refused keys, and their own YAML files.

Hydra and OmegaConf read some faulty YAML without a word (`off` as false, `010` as 8, an empty file as no
file) and some at great cost (aliases of aliases), so a person's files are looked at before they are used.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ffn_bench.errors import UserError, yaml_error
from ffn_bench.schema import GROUPS

MAX_NODES = 20_000
"""Values a YAML file may hold with its aliases written out."""


def prepare(argv: Sequence[str]) -> list[str]:
    """The command line for Hydra: `optimizer.lr` becomes `lr`, which is the same setting, and
    `+tune=…` needs no `-m`.

    Raises `UserError` for an unknown flag, for `_target_`, and for faults in the YAML files of the person's
    own `--config-dir` or `--config-path` that this command line chooses.
    """
    # argparse does not find a flag behind settings
    argv = sorted(argv, key=lambda a: a not in ("-m", "--multirun"))
    known = _parse_flags(argv)
    if known.experimental_rerun:
        raise UserError("--experimental-rerun", "reads a pickle, which can run anything", "give the settings")
    if known.multirun and (known.cfg or known.info):
        flag = "--cfg" if known.cfg else "--info"
        raise UserError(flag, "shows one run, and -m is many", f"leave out -m, or {flag}")
    for argument in argv:
        if re.search(r"(^|[.{,+\s])_target_\s*[:=]", argument):
            raise UserError(argument, "'_target_' is not taken from a configuration", "choose by name")
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
            raise UserError(key, "comes with the choice of the group", f"write {group}=…")
    keys = [re.sub(r"^[+~]*", "", o).partition("=")[0] for o in known.overrides]
    if "lr" in keys and "optimizer.lr" in keys:
        raise UserError("optimizer.lr", "is given beside lr, and they are one setting", "give one of them")
    for folder in (known.config_dir, known.config_path):
        if folder and Path(folder).is_dir():
            for file in _chosen_files(Path(folder), known.overrides, known.config_name):
                check_yaml(file)
    other = known.cfg or known.info or known.shell_completion or known.help or known.hydra_help or known.run
    if not (known.multirun or other) and any(o.startswith("+tune=") for o in known.overrides):
        argv = ["-m", *argv]  # conf/tune says so too, which Hydra does not hear where another key is wrong
    return [re.sub(r"^(\+*)optimizer\.lr=", "lr=", argument) for argument in argv]


def _parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError("command line", message, "see --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse would print a page of usage
    known, unknown = parser.parse_known_args(list(argv))
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise UserError(unknown[0], "no such flag", f"settings are written {name.replace('-', '_')}=value")
    return known


def _chosen_files(folder: Path, overrides: Sequence[str], primary: str | None) -> Iterator[Path]:
    """The files below `folder` that overrides choose (`group=option`), and those that their defaults name."""
    names = [primary] if primary else []
    for override in overrides:
        if match := re.fullmatch(r"\+*([\w/-]+)(?:@[\w.]+)?=([\w/,. -]+)", override):
            names += [f"{match[1]}/{option.strip()}" for option in match[2].split(",")]
    seen: set[Path] = set()
    while names:
        file = folder / f"{names.pop().removesuffix('.yaml')}.yaml"
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        yield file
        names += _defaults_of(file)


def _defaults_of(file: Path) -> list[str]:
    content: Any = yaml.safe_load(file.read_bytes())
    names = []
    group = file.parent.name
    entries = content.get("defaults") or []
    if not isinstance(entries, list) or not all(isinstance(e, (str, dict)) for e in entries):
        raise UserError(f"{file}, defaults", "is not a list of choices", "write - group: option lines")
    if any(e in (file.stem, f"{group}/{file.stem}") for e in entries):
        raise UserError(f"{file}, defaults", "names the file itself", "remove that line")
    for entry in entries:
        if isinstance(entry, dict):
            for key, option in entry.items():
                path = str(key).removeprefix("override ").split("@")[0].strip()
                names.append(
                    path.lstrip("/") + f"/{option}" if path.startswith("/") else f"{group}/{path}/{option}"
                )
        elif isinstance(entry, str) and entry != "_self_":
            path = entry.split("@")[0]
            names.append(path.lstrip("/") if path.startswith("/") else f"{group}/{path}")
    return names


def check_yaml(file: Path) -> None:
    """Raise `UserError` for a YAML file that does not say what its author means. Runs nothing in it."""
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(
            str(file), f"is not UTF-8 (byte 0x{e.object[e.start]:02x})", "save it as UTF-8"
        ) from e
    except OSError as e:
        raise UserError(str(file), (e.strerror or str(e)).lower(), "check its permissions") from e
    try:
        loader = yaml.SafeLoader(text)
        loader.name = str(file)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as e:
        raise yaml_error(e) from e
    except RecursionError as e:
        raise UserError(str(file), "is nested too deeply", "write it flat") from e
    except yaml.YAMLError as e:
        raise UserError(str(file), str(e).splitlines()[0], "mend the file") from e
    if root is None:
        raise UserError(str(file), "is empty", "write key: value lines, or do not choose it")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(str(file), "holds no key: value lines at its top", "write key: value lines")
    sizes: dict[int, int] = {}
    _check_node(root, file, sizes)
    if sizes[id(root)] > MAX_NODES:
        raise UserError(str(file), f"its aliases stand for {sizes[id(root)]:,} values", "use fewer")


def _check_node(node: yaml.Node, file: Path, sizes: dict[int, int]) -> None:
    """Check a node and those below it, each once. `sizes` takes how many values a node stands for."""
    place = f"{file}, line {node.start_mark.line + 1}"
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(place, "an alias holds itself", "write it out")
        return
    sizes[id(node)] = 0  # being looked at
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise UserError(place, f"tag {node.tag.removeprefix('tag:yaml.org,2002:')!r} is refused", "remove it")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            here = f"{file}, line {key.start_mark.line + 1}"
            if name in seen:
                raise UserError(here, f"key {name!r} is there twice", "keep one")
            if name == "_target_":
                raise UserError(here, "'_target_' is not taken from a configuration", "choose by name")
            seen.add(name)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        _check_plain(node, place)
    for child in children:
        _check_node(child, file, sizes)
    sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)


def _check_plain(node: yaml.ScalarNode, place: str) -> None:
    """An unquoted value must be what it looks like (YAML 1.1 has surprises)."""
    value, kind = node.value, node.tag.rpartition(":")[2]
    if kind == "bool" and value.lower() not in ("true", "false"):
        raise UserError(place, f"YAML reads {value!r} as true or false", "write true, false, or quote it")
    if kind == "int" and re.match(r"[-+]?0[0-9_]", value):
        raise UserError(
            place, f"YAML reads {value!r} as octal", "write it without the leading 0, or quote it"
        )
    if kind in ("int", "float") and ":" in value:
        raise UserError(place, f"YAML reads {value!r} as a number to base 60", "quote it")
