"""Tables of cases, listed from the configuration files, so that a new one inherits every test."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ffn_bench.command_line.invocation import config_folder
from ffn_bench.configuration import parsing
from ffn_bench.configuration.schema import TrainConfig


def options(group: str) -> list[str]:
    folder = config_folder() / group
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    parsing.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose("config", list(overrides))


def parsed(*overrides: str) -> TrainConfig:
    return parsing.parse(composed(*overrides))


OPTIMIZER_NEEDS = {"torch": ["optimizer.name=ASGD"]}
DATA_NEEDS = {"csv": ["data.path=x.csv", "data.target=label"]}


def write_csv(path: Path, rows: int = 60) -> Path:
    """A small, clean table of two features and two classes."""
    lines = ["width,height,label"]
    for k in range(rows):
        side = k % 2
        lines.append(f"{side + k / 1000},{1 - side - k / 997},{'right' if side else 'left'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
