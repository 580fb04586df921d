"""Tables of cases, listed from the configuration files, so that a new one inherits every test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from ffn_bench.command_line.composition import guarded
from ffn_bench.configuration import parsing
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.engine.build import build, build_batched, prepare
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.metrics import Measurement
from ffn_bench.engine.protocol import Advanced
from ffn_bench.engine.tensors import on_device, to_tensors


def options(group: str) -> list[str]:
    folder = config_folder() / group
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    parsing.register()
    with guarded(TrainConfig), initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose("config", list(overrides))


def parsed(*overrides: str) -> TrainConfig:
    return parsing.parse(composed(*overrides))


def torch_run(*overrides: str) -> Run:
    """A run in the torch engine, ready to train."""
    return build(parsed("engine=torch", *overrides))[0].runs[0]


def trained(run: Run) -> list[Measurement]:
    """All that is measured of a run, trained to its end."""
    return all_measured(run.training)[0]


def bits(measurements: list[Measurement]) -> list[Any]:
    """All that was measured, exactly."""
    return [(m.step, {tag: value.hex() for tag, value in m.values.items()}) for m in measurements]


def all_measured(training: Training) -> list[list[Measurement]]:
    """All that is measured of several, trained to their ends, a list a run."""
    by_run: dict[Run, list[Measurement]] = {run: [] for run in training.runs}
    for measured in training.measurements():
        for run, measurements in measured.items():
            by_run[run] += measurements
    return list(by_run.values())


def stop_at(training: Training, step: int) -> None:
    """Let it be asked to stop after so many steps."""
    engine, advance = training.engine, training.engine.advance
    training.stop.requested = step == 0

    def advance_to(count: int, log_every: int, log_last: bool) -> Advanced:
        left = step - engine.step
        advanced = (
            advance(left, log_every, False) if 0 < left < count else advance(count, log_every, log_last)
        )
        training.stop.requested = engine.step >= step
        return advanced

    engine.advance = advance_to  # type: ignore[method-assign]


def together(configs: Sequence[TrainConfig], device: str = "cpu") -> Training:
    """Runs in the batched engine, ready to train."""
    data = prepare(configs[0]).data
    return build_batched(configs, data, on_device(data, device))


def layers_of(run: Run) -> list[tuple[Tensor, Tensor]]:
    """Copies of a run's weights, as tensors."""
    layers: list[tuple[Tensor, Tensor]] = to_tensors(run.layers())
    return layers


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
