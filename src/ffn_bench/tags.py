"""What is measured: a table of quantities, and how each is named, ordered and shown.

A tag is the name of a measured number in metrics.jsonl, summary.json and TensorBoard: `grad_norm`, or a
quantity of a split such as `loss/val`. An entry of `QUANTITIES` with `of_rows` is all that a new score of
predictions needs: the engines measure it, and it is logged, shown and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Splits of the data, and their names in texts."""

Task = Literal["classification", "regression"]
"""What a network is trained for."""
TASKS: tuple[Task, ...] = get_args(Task)

NOT_MEASURED = "–"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One measured quantity. Where it has no splits, its name is its tag."""

    name: str
    label: str = ""
    """Its name in texts, where that is another one."""
    splits: tuple[str, ...] = ()
    direction: Literal["lower", "higher"] | None = None
    """Which values are better; None where neither are."""
    lowest: float = -math.inf
    highest: float = math.inf
    """Bounds of what it can be."""
    unit: str = ""
    """`nats`, or `%` for a proportion, which is shown in per cent; else a number without a unit, or in that
    of the targets. A loss has the unit of its criterion."""
    task: Task | None = None
    """The task that it is a score of; None for what is no score, or of both."""
    of_rows: Callable[[Any, Any], Any] | None = None
    """What is averaged over the rows of a split, numbers or booleans, of arrays or tensors: in a
    classification `[n, …]`, a function of logits `[n, n_classes, …]` and labels `[n, …]`; in a regression
    `[n, n_targets, …]`, of outputs and standardised targets, both of this shape."""
    of_means: Callable[[Any, Any, Any], Any] | None = None
    """Its value for each target, where that is not the mean: a function of the means, of each target's
    scale (in its own unit, of 1 in the standardised) and of its variance in the split, standardised."""
    of_split: bool = False
    """Whether it is no such mean but of all predictions of a split together: the function of its name in
    `engine/scores.py`. It is measured when a run has finished, and at every epoch's end where it is
    monitored."""
    chance: Callable[[int], float] | None = None
    """The value of a constant prediction by the number of classes, for classes of equal size."""

    def tag(self, split: str) -> str:
        """Its tag on a split."""
        return f"{self.name}/{split}"

    def words(self, split: str) -> str:
        """The quantity on a split, in words: `test loss`."""
        return f"{SPLITS[split]} {self.shown}"

    @property
    def shown(self) -> str:
        """Its name in texts."""
        return self.label or self.name

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better; else lower ones are, or neither."""
        return self.direction == "higher"

    @property
    def sign(self) -> int:
        """1 where higher values are better, else −1: times a value, it is larger for a better one."""
        return 1 if self.higher_is_better else -1

    @property
    def worst(self) -> float:
        """The value that a diverged run counts as."""
        return self.lowest if self.higher_is_better else self.highest

    @property
    def is_percent(self) -> bool:
        """Whether it is a proportion, shown in per cent, its differences in percentage points."""
        return self.unit == "%"

    def digits(self, value: float, decimals: int = 2) -> str:
        """A finite value without its unit: per cent with two decimals, others with four significant digits;
        with another number of `decimals`, as many more or fewer."""
        return f"{100 * value:.{decimals}f}" if self.is_percent else f"{value:.{decimals + 2}g}"

    def text(self, value: Any, space: str = "", decimals: int = 2) -> str:
        """A value with its unit, `space` before a percent sign; a dash for what was not measured."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return NOT_MEASURED
        return self.digits(value, decimals) + (f"{space}%" if self.is_percent else "")

    def difference(self, value: float) -> str:
        """A finite difference of two values, signed, without its unit: in percentage points, or with three
        significant digits."""
        return f"{100 * value:+.2f}" if self.is_percent else f"{value:+.3g}"


QUANTITIES = (
    Quantity(
        name="accuracy",
        splits=("train", "val", "test"),
        direction="higher",
        lowest=0.0,
        highest=1.0,
        unit="%",
        task="classification",
        of_rows=lambda logits, labels: logits.argmax(1) == labels,  # of equal ones the first
        chance=lambda n_classes: 1 / n_classes,
    ),
    Quantity(
        name="rmse",
        label="RMSE",
        splits=("train", "val", "test"),
        direction="lower",
        lowest=0.0,
        task="regression",
        of_rows=lambda outputs, targets: (outputs - targets) ** 2,
        of_means=lambda means, scale, variance: scale * means**0.5,
    ),
    Quantity(
        name="mae",
        label="MAE",
        splits=("train", "val", "test"),
        direction="lower",
        lowest=0.0,
        task="regression",
        of_rows=lambda outputs, targets: abs(outputs - targets),
        of_means=lambda means, scale, variance: scale * means,
    ),
    Quantity(
        name="r2",
        label="R²",
        splits=("train", "val", "test"),
        direction="higher",
        highest=1.0,
        task="regression",
        of_rows=lambda outputs, targets: (outputs - targets) ** 2,
        # Without any variance scikit-learn's value is 0, and 1 where all errors are 0.
        of_means=lambda means, scale, variance: 1 - (means / variance if variance else float(means > 0)),
    ),
    Quantity(name="loss", splits=("train", "val", "test"), direction="lower", lowest=0.0),
    Quantity(
        name="balanced_accuracy",
        label="balanced accuracy",
        splits=("val", "test"),
        direction="higher",
        lowest=0.0,
        highest=1.0,
        unit="%",
        task="classification",
        of_split=True,
        chance=lambda n_classes: 1 / n_classes,
    ),
    Quantity(
        name="macro_f1",
        label="macro F1",
        splits=("val", "test"),
        direction="higher",
        lowest=0.0,
        highest=1.0,
        unit="%",
        task="classification",
        of_split=True,
        chance=lambda n_classes: 2 / (n_classes * (n_classes + 1)),
    ),
    Quantity(
        name="roc_auc",
        label="ROC AUC",
        splits=("val", "test"),
        direction="higher",
        lowest=0.0,
        highest=1.0,
        task="classification",
        of_split=True,
        chance=lambda n_classes: 0.5,
    ),
    Quantity(
        name="log_loss",
        label="log loss",
        splits=("val", "test"),
        direction="lower",
        lowest=0.0,
        unit="nats",
        task="classification",
        of_split=True,
        chance=math.log,
    ),
    Quantity(
        name="calibration_error",
        label="calibration error",
        splits=("val", "test"),
        direction="lower",
        lowest=0.0,
        highest=1.0,
        unit="%",
        task="classification",
        of_split=True,
    ),
    Quantity(name="objective", splits=("train",), direction="lower"),
    Quantity(name="lr"),
    Quantity(name="grad_norm"),
    Quantity(name="weight_norm"),
    Quantity(name="update_ratio"),
    Quantity(name="curvature/lambda_min"),
    Quantity(name="curvature/lambda_max"),
    Quantity(name="curvature/grad_norm"),
)
"""Everything that a run can log, in the order in which it is shown."""

_NAMED = {quantity.name: quantity for quantity in QUANTITIES}

SCORE = _NAMED["accuracy"]
"""The primary score of the task, classification: on validation it chooses epochs and settings."""
RMSE, MAE, R2 = _NAMED["rmse"], _NAMED["mae"], _NAMED["r2"]
PRIMARY: dict[Task, Quantity] = {"classification": SCORE, "regression": RMSE}
"""The score of a task that chooses epochs and settings, on validation, unless a run says otherwise."""
BESIDE_LOSS: dict[Task, Quantity] = {"classification": SCORE, "regression": R2}
"""The score of a task that stands beside a loss, between bounds that mean the same of any data."""
LOSS, OBJECTIVE, LR = _NAMED["loss"], _NAMED["objective"], _NAMED["lr"]
GRAD_NORM, WEIGHT_NORM = _NAMED["grad_norm"], _NAMED["weight_norm"]
UPDATE_RATIO = _NAMED["update_ratio"]
LAMBDA_MIN, LAMBDA_MAX = _NAMED["curvature/lambda_min"], _NAMED["curvature/lambda_max"]
CURVATURE_GRAD_NORM = _NAMED["curvature/grad_norm"]

SCORES_OF: dict[Task, tuple[Quantity, ...]] = {
    task: tuple(quantity for quantity in QUANTITIES if quantity.task == task and quantity.of_rows)
    for task in TASKS
}
"""What is measured of a task's predictions on every split, at every epoch's end."""
SCORES = SCORES_OF["classification"]
"""The same of a classification."""
SPLIT_SCORES = tuple(quantity for quantity in QUANTITIES if quantity.of_split)
"""What is measured of all predictions of a split together, in a task of their own."""


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a run by its flat configuration; earlier releases knew one."""
    task: Task = config.get("data.task", "classification")
    return task


HELD_OUT = tuple(quantity for quantity in QUANTITIES if "val" in quantity.splits)
"""What is measured on rows that were not trained on: it can be compared, and choose settings."""


def at_epoch_end(split: str, task: Task = "classification") -> tuple[str, ...]:
    """The tags measured on a split at every epoch's end, in the order of an engine's means. Without the
    training loss: it is the run's own curve."""
    loss = () if split == "train" else (LOSS.tag(split),)
    return (*loss, *(score.tag(split) for score in SCORES_OF[task]))


MONITORED_IN: dict[Task, tuple[str, ...]] = {
    task: (
        *(tag for split in SPLITS for tag in at_epoch_end(split, task)),
        *(score.tag(split) for score in SPLIT_SCORES if score.task == task for split in score.splits),
    )
    for task in TASKS
}
"""The tags that can say which epoch is the best, by task: measured at every epoch's end, if they are asked
for, with a better direction."""
MONITORED = tuple(dict.fromkeys(tag for known in MONITORED_IN.values() for tag in known))
"""Those of any task."""

_UNKNOWN = Quantity(name="")


def quantity(tag: str) -> Quantity:
    """The quantity of a tag; one without a direction or bounds for a tag that is not in the table."""
    return _NAMED.get(tag) or _NAMED.get(tag.partition("/")[0], _UNKNOWN)


def words(tag: str) -> str:
    """A tag in words: `test loss`; as it is where it is not of a quantity that is compared."""
    measured, split = quantity(tag), tag.partition("/")[2]
    return measured.words(split) if measured in HELD_OUT and split in SPLITS else tag


def primary_in(measured: Collection[str]) -> Quantity:
    """The primary score of the task that these tags are of; a classification's where none is a score."""
    known = (score for score in PRIMARY.values() if any(score.tag(split) in measured for split in SPLITS))
    return next(known, PRIMARY["classification"])


def short_words(tag: str) -> str:
    """As `words`, of a task's primary score on validation only where it is measured."""
    return SPLITS["val"] if tag in (score.tag("val") for score in PRIMARY.values()) else words(tag)
