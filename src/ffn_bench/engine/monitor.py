"""Which epoch of a run is its best, and when none has been better for so long that the run ends."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ffn_bench import tags
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine import scores
from ffn_bench.errors import UserError, short


class Monitor:
    """Sees what a run measures at the end of every epoch, the initial weights' included.

    The best epoch is the first of those with the best value of the run's `monitored` tag; where the data have
    no split that it could be of and the run names no tag, it is the last epoch. Of the run's `splits` with
    rows; raises `UserError` where it names a tag, or `patience`, that they cannot serve.
    """

    def __init__(self, config: TrainConfig, splits: Collection[str]) -> None:
        tag = config.monitored
        split = tag.partition("/")[2]
        self.tag: str | None = tag if split in splits else None
        """What is monitored; None: the last epoch is the best."""
        if self.tag is None and (config.monitor is not None or config.patience is not None):
            key = "monitor" if config.monitor is not None else "patience"
            what = f"{tag} is never measured: the data have no {tags.SPLITS[split]} part"
            instead = tags.PRIMARY[config.task].tag("train")
            todo = f"use a larger data.{split}_fraction, or another monitor, such as {instead}"
            raise UserError(key, what, todo)
        self._sign = tags.quantity(tag).sign
        self._patience, self._min_delta = config.patience, config.min_delta
        self.step: int | None = None
        """Of the best epoch's end; None before anything was seen."""
        self.epoch = 0
        self.value = math.nan
        """The monitored value at the best epoch."""
        self._reference, self._improved = math.nan, 0
        """The value that the next must exceed to count as an improvement, and its epoch."""

    def see(self, epoch: int, step: int, values: Mapping[str, float]) -> bool:
        """Take what was measured at an epoch's end, finite values; whether that epoch is the best so far."""
        value = math.nan if self.tag is None else values[self.tag]
        first = self.step is None
        if self.tag is None or first or self._sign * value > self._sign * self._reference + self._min_delta:
            self._reference, self._improved = value, epoch
        if self.tag is None or first or self._sign * value > self._sign * self.value:
            self.epoch, self.step, self.value = epoch, step, value
            return True
        return False

    def why_stop(self, epoch: int) -> str:
        """Why a run ends after an epoch that is not its last; empty where it goes on."""
        if self._patience is None or epoch - self._improved < self._patience:
            return ""
        epochs = f"{self._patience} epoch" + "s" * (self._patience > 1)
        by = f" by more than {self._min_delta:g}" if self._min_delta else ""
        return f"no improvement of {self.tag}{by} for {epochs} (best: epoch {self.epoch})"

    # --- checkpoints ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any] | None:
        """All that it knows, as plain values; None before it has seen an epoch."""
        if self.step is None:
            return None
        best = {"epoch": self.epoch, "step": self.step, "value": self.value}
        return {"tag": self.tag, **best, "reference": self._reference, "improved": self._improved}

    def state_like(self, epoch: int, steps_per_epoch: int) -> dict[str, Any]:
        """What `state` must be like in some epoch, for `checkpoint_state.check`."""
        best = -1

        def is_epoch(value: Any) -> bool:
            nonlocal best
            best = value if type(value) is int and 0 <= value <= epoch else -1
            return best >= 0

        def is_value(value: Any) -> bool:
            return type(value) is float and math.isfinite(value) == (self.tag is not None)

        return {
            "tag": self.tag,
            "epoch": is_epoch,
            "step": lambda value: type(value) is int and value == best * steps_per_epoch,
            "value": is_value,
            "reference": is_value,
            "improved": lambda value: type(value) is int and 0 <= value <= best,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.epoch, self.step, self.value = state["epoch"], state["step"], state["value"]
        self._reference, self._improved = state["reference"], state["improved"]


def check_known(config: TrainConfig, data: Data[Any]) -> None:
    """Raise `UserError` where a run monitors a score that is not known on its split, since a class has no row
    there."""
    name, _, split = config.monitored.partition("/")
    if not tags.quantity(config.monitored).of_split:
        return
    y, n_classes = getattr(data, split).y, len(data.classes)
    anything = scores.Predictions(np.full((len(y), n_classes), 1 / n_classes), np.zeros_like(y), y)
    if math.isnan(scores.OF_SPLIT[name](anything)):
        absent = data.classes[int(np.bincount(y, minlength=n_classes).argmin())]
        what = f"{config.monitored} needs rows of every class, and the {tags.SPLITS[split]} part has none of"
        todo = f"use a larger data.{split}_fraction, or another monitor, such as {tags.LOSS.tag(split)}"
        raise UserError("monitor", f"{what} {short(absent, 40)!r}", todo)
