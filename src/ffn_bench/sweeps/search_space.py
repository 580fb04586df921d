"""Search spaces: what the keys of an optimizer may be, and the settings that are tried of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from ffn_bench.command_line.composition import OptimizerFile
from ffn_bench.errors import UserError

REPEATS = 1000
"""Consecutive draws without a new setting after which a space is taken as exhausted."""

DEFAULT = {"lr": "tag(log, interval(1e-5, 10))"}
"""The space of an optimizer that has none of its own."""


def parse(key: str, text: object, where: str) -> Override:
    """A key and its values in Hydra's sweep syntax. `where` is that of the `UserError`."""
    try:
        return OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException as e:
        todo = "write interval(1e-4,1), tag(log,interval(1e-4,1)) or choice(0.5,0.9)"
        raise UserError(where, f"{key}: {text!r} cannot be read", todo) from e


@dataclass(frozen=True)
class Axis:
    """What one key may be: `choices`, or the numbers of an interval, `log` where its logarithm is even."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    is_integer: bool = False

    @staticmethod
    def read(key: str, text: object, where: str) -> Axis:
        """An axis from Hydra's sweep syntax, or from one fixed value. `where` is that of the `UserError`."""
        override = parse(key, text, where)
        value = override.value()
        if isinstance(value, (ChoiceSweep, RangeSweep)):
            return Axis(key, tuple(override.sweep_string_iterator()))
        if not isinstance(value, IntervalSweep):
            return Axis(key, (override.get_value_element_as_str(),))
        low, high, log = value.start, value.end, "log" in value.tags
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)) or low >= high:
            raise UserError(where, f"{key}: {text} is not an interval", "write the lower number first")
        if log and low <= 0:
            raise UserError(where, f"{key}: {text} has no logarithm", "start above 0, or leave out tag(log)")
        return Axis(key, (), low, high, log, isinstance(low, int) and isinstance(high, int) and not log)

    def at(self, fraction: float) -> str:
        """The value at a `fraction` (0 to 1) of the range, as text for an override."""
        if self.choices:
            return self.choices[min(int(fraction * len(self.choices)), len(self.choices) - 1)]
        if self.is_integer:
            return str(min(int(self.low + fraction * (self.high - self.low + 1)), int(self.high)))
        if self.log:
            value = math.exp(math.log(self.low) + fraction * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + fraction * (self.high - self.low)
        return self._text(value)

    def _text(self, value: float) -> str:
        return f"{min(max(float(f'{value:.4g}'), self.low), self.high):.10g}"

    def suggested(self, trial: Any) -> str:
        """What an Optuna trial suggests."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, list(self.choices)))
        if self.is_integer:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high)))
        return self._text(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def grid(self, n: int) -> list[str]:
        """`n` values evenly from end to end; all there are, where they are counted."""
        if self.choices:
            return list(self.choices)
        return list(dict.fromkeys(self.at(k / max(n - 1, 1)) for k in range(n)))


Setting = tuple[str, ...]
"""Overrides such as `lr=0.1`, in the order of the space."""


def draws(space: Sequence[Axis], name: str, search_seed: int) -> Iterator[Setting]:
    """Random settings, all different. They depend on the name and the seed only, so those of a smaller budget
    are the first of a larger one."""
    rng = random.Random(f"{search_seed} {name}")
    seen: set[Setting] = set()
    repeats = 0
    while repeats < REPEATS:
        setting = tuple(f"{axis.key}={axis.at(rng.random())}" for axis in space)
        repeats += 1
        if setting not in seen:
            seen.add(setting)
            repeats = 0
            yield setting


def read_space(loader: ConfigLoader, option: str) -> tuple[str, dict[str, Any]]:
    """Where the search space of `optimizer=<option>` stands, and the space: `search_space` in the optimizer's
    file, a file search_space/<option>.yaml of a person's `--config-dir`, else `DEFAULT`.

    Raises `UserError` for a faulty one.
    """
    repository = loader.repository  # type: ignore[attr-defined]  # of Hydra's one implementation
    where = f"optimizer/{option}.yaml, search_space"
    optimizer = repository.load_config(f"optimizer/{option}")
    if isinstance(optimizer, OptimizerFile):
        space = optimizer.search_space
    else:
        where, file = f"search_space/{option}", repository.load_config(f"search_space/{option}")
        space = OmegaConf.to_container(file.config) if file is not None else DEFAULT
    if not isinstance(space, dict) or not space:
        raise UserError(where, "contains no lines of the form key: values", "write lr: interval(…)")
    return where, {str(key): value for key, value in space.items()}
