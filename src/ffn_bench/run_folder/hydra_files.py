"""`.hydra/` in a run's folder, as Hydra users expect it: config.yaml, hydra.yaml, overrides.yaml.

Hydra itself would write these files, following any link; so its own writing is switched off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ffn_bench.configuration.omegaconf_internals import get_omega_conf_dumper
from ffn_bench.run_folder.files import Folder

SUBDIR = ".hydra"


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """YAML as OmegaConf writes it, where a string that looks like a number is quoted; ten times as fast."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


_written: dict[tuple[str, ...], tuple[str, str]] = {}
"""The node written last under each path of keys, as `repr`, and its YAML: in a sweep most are equal."""


def write(
    folder: Folder, config: Mapping[Any, Any], hydra: Mapping[Any, Any], overrides: Sequence[str]
) -> None:
    """Write how a run was started, once: existing files stay.

    `config` and `hydra` are the composed configuration and its node `hydra`, as plain values.
    """
    contents = {
        "config": [_node((str(key),), value) for key, value in config.items()],
        "hydra": [
            "hydra:\n",
            *(_node(("hydra", key), value) for key, value in {**hydra, "output_subdir": SUBDIR}.items()),
        ],
        "overrides": [_yaml(overrides)],
    }
    missing = {f"{SUBDIR}/{name}.yaml": "".join(parts).encode() for name, parts in contents.items()}
    folder.put_all({file: text for file, text in missing.items() if folder.kind(file) is None})


def _node(path: tuple[str, ...], value: Any) -> str:
    """A node of a configuration as YAML, with its key, where it stands in its file."""
    content = repr(value)
    if _written.get(path, ("",))[0] != content:
        node = {path[-1]: value}
        for key in reversed(path[:-1]):
            node = {key: node}
        text = _yaml(node)
        for _ in path[:-1]:  # the lines of the keys above are there already
            text = text.partition("\n")[2]
        _written[path] = content, text
    return _written[path][1]


def _yaml(content: Any) -> str:
    options: Any = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    return str(yaml.dump(content, Dumper=_Dumper, **options))
