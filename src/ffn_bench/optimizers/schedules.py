"""The table of learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import (
    CosineConfig,
    InverseTimeConfig,
    ScheduleConfig,
    StepConfig,
    WarmupCosineConfig,
)

# --- schedules ------------------------------------------------------------------------------------------

Schedule = Callable[[int], float]
"""Step t (from 0) → the factor of the learning rate at that step."""


def _cosine(t: float, end: float, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, t / max(1.0, end)))) / 2


def _constant(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    return lambda t: 1.0


def _inverse_time(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    decay = cast(InverseTimeConfig, config).decay
    return lambda t: 1 / (1 + decay * t)


def _step(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    c = cast(StepConfig, config)
    return lambda t: c.gamma ** (t // (c.every * steps_per_epoch))


def _cosine_schedule(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    final = cast(CosineConfig, config).final
    return lambda t: _cosine(t, steps, final)


def _warmup_cosine(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    c = cast(WarmupCosineConfig, config)
    rise = c.warmup * steps
    return lambda t: (t + 1) / (rise + 1) if t < rise else _cosine(t - rise, steps - rise, c.final)


SCHEDULES: dict[str, Callable[[ScheduleConfig, int, int], Schedule]] = {
    "constant": _constant,
    "inverse_time": _inverse_time,
    "step": _step,
    "cosine": _cosine_schedule,
    "warmup_cosine": _warmup_cosine,
}
"""A maker for every YAML of conf/schedule: (config, steps of the run, steps of an epoch) → `Schedule`."""


def build_schedule(config: ScheduleConfig, steps: int, steps_per_epoch: int) -> Schedule:
    """The schedule that `config` names. Raises `UserError` for an unknown name."""
    one_of(config.name, tuple(SCHEDULES), "schedule.name")
    return SCHEDULES[config.name](config, steps, steps_per_epoch)
