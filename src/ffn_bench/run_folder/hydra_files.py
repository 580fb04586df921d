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


def write(
    folder: Folder, config: Mapping[Any, Any], hydra: Mapping[Any, Any], overrides: Sequence[str]
) -> None:
    """Write how a run was started, once: existing files stay.

    `config` and `hydra` are the composed configuration and its node `hydra`, as plain values.
    """
    contents = {
        "config": config,
        "hydra": {"hydra": {**hydra, "output_subdir": SUBDIR}},
        "overrides": overrides,
    }
    missing = {f"{SUBDIR}/{name}.yaml": content for name, content in contents.items()}
    missing = {file: content for file, content in missing.items() if folder.kind(file) is None}

    def text(content: Any) -> str:
        options: Any = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
        return str(yaml.dump(content, Dumper=_Dumper, **options))

    folder.put_all({file: text(content).encode() for file, content in missing.items()})
