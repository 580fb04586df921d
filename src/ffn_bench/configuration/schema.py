"""Every key of the commands, as typed dataclasses; `validation` checks their values."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from omegaconf import II, MISSING

from ffn_bench import tags

# --- a configuration as flat keys -----------------------------------------------------------------------


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 0.005, …}`: every leaf of a (nested) dataclass, lists and dicts as leaves."""
    flat: dict[str, Any] = {}
    for name in _names(config.__class__):
        value = getattr(config, name)
        if isinstance(value, Keys):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@functools.cache
def _names(node: type) -> tuple[str, ...]:
    return tuple(spec.name for spec in dataclasses.fields(node))


class Keys:
    """Keys of a configuration: equal, and written, by their values, as dataclasses are. Methods of their own
    for each of 33 of them would take --help 15 ms."""

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # they can be changed

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


# --- data -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class DataConfig(Keys):
    """What every data set has: a task, a validation fraction, the seed of the split, what is done about
    duplicate rows, standardisation."""

    name: str = MISSING
    task: str = "classification"
    val_fraction: float = 0.15
    split_seed: int = 0
    duplicates: str = "warn"
    standardize: bool = True


@dataclass(kw_only=True, eq=False, repr=False)
class SplitDataConfig(DataConfig):
    """A data set without a test set of its own: a fraction of its rows becomes one."""

    test_fraction: float = 0.15


@dataclass(kw_only=True, eq=False, repr=False)
class ColumnsConfig(SplitDataConfig):
    """What is done with the columns of a table: with its blank cells, with columns that are left out, with
    numbers that are categories, with weights of rows."""

    missing: str = "error"
    drop: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    weight: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class CsvConfig(ColumnsConfig):
    """A person's own table."""

    path: str = MISSING
    target: str | list[str] = MISSING
    delimiter: str | None = None
    test_path: str | None = None
    preview: bool = False


@dataclass(kw_only=True, eq=False, repr=False)
class ArraysConfig(ColumnsConfig):
    """Rows and labels that a person's program has given."""

    sha256: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class SyntheticConfig(SplitDataConfig):
    """Gaussian clusters on the corners of a hypercube, one or more a class."""

    n_samples: int = 2000
    n_features: int = 16
    n_classes: int = 4


@dataclass(kw_only=True, eq=False, repr=False)
class MoonsConfig(SplitDataConfig):
    """Two interleaved half circles in the plane."""

    n_samples: int = 1000
    noise: float = 0.15


@dataclass(kw_only=True, eq=False, repr=False)
class CirclesConfig(SplitDataConfig):
    """A circle around a smaller one."""

    n_samples: int = 1000
    noise: float = 0.1
    factor: float = 0.5


@dataclass(kw_only=True, eq=False, repr=False)
class XorConfig(SplitDataConfig):
    """Four Gaussian clusters at the corners of a square, opposite ones of one class."""

    n_samples: int = 1000
    noise: float = 0.4


@dataclass(kw_only=True, eq=False, repr=False)
class GaussiansConfig(SplitDataConfig):
    """Gaussian classes in the plane, their means on a circle."""

    n_samples: int = 1500
    n_classes: int = 3
    noise: float = 0.5


@dataclass(kw_only=True, eq=False, repr=False)
class FriedmanConfig(SplitDataConfig):
    """A regression on five features, beside which there are others."""

    task: str = "regression"
    n_samples: int = 1000
    n_features: int = 10
    noise: float = 1.0


@dataclass(kw_only=True, eq=False, repr=False)
class SpiralsConfig(SplitDataConfig):
    """Interleaved spiral arms in the plane, an arm a class."""

    n_samples: int = 1500
    n_classes: int = 3
    noise: float = 0.1


@dataclass(kw_only=True, eq=False, repr=False)
class TorchvisionConfig(DataConfig):
    """A torchvision data set, which brings its own test set."""

    val_fraction: float = 0.1
    root: str | None = None
    download: bool = True


# --- model ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ModelConfig(Keys):
    """What every network has: an activation between its layers and a way to draw its weights."""

    name: str = MISSING
    activation: str = "relu"
    init: str = "torch"
    init_std: float = 0.1

    def widths(self) -> list[int]:
        """Widths of the hidden layers, in order."""
        raise NotImplementedError


@dataclass(kw_only=True, eq=False, repr=False)
class HiddenConfig(ModelConfig):
    """Hidden layers given one by one."""

    hidden: list[int] = field(default_factory=lambda: [10, 20, 15])

    def widths(self) -> list[int]:
        """Widths of the hidden layers, in order."""
        return list(self.hidden)


@dataclass(kw_only=True, eq=False, repr=False)
class MlpConfig(ModelConfig):
    """`depth` hidden layers of `width` units."""

    depth: int = 2
    width: int = 128

    def widths(self) -> list[int]:
        """Widths of the hidden layers, in order."""
        return [self.width] * self.depth


@dataclass(kw_only=True, eq=False, repr=False)
class LinearConfig(ModelConfig):
    """No hidden layer: multinomial logistic regression, a convex problem."""

    def widths(self) -> list[int]:
        """Widths of the hidden layers, in order."""
        return []


def count_parameters(widths: Sequence[int]) -> int:
    """Number of weights and biases of a network of these layer widths, input and output included."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(widths))


# --- optimizer ------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class OptimizerConfig(Keys):
    """An optimizer; `lr` always is the run's learning rate. Fields past it are the optimizer's own."""

    name: str = MISSING
    lr: float = II("lr")

    def hyperparameters(self) -> dict[str, Any]:
        """Every setting of the optimizer but its name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@dataclass(kw_only=True, eq=False, repr=False)
class RuleConfig(OptimizerConfig):
    """An update rule, whose keys are those of its YAML file: `rule_files` says how."""


@dataclass(kw_only=True, eq=False, repr=False)
class LbfgsConfig(OptimizerConfig):
    """L-BFGS, which needs the whole training set at every step."""

    max_iter: int = 20
    history_size: int = 10
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9
    line_search_fn: str | None = "strong_wolfe"


@dataclass(kw_only=True, eq=False, repr=False)
class NewtonConfig(OptimizerConfig):
    """Damped Newton steps with the exact Hessian, for small networks."""

    damping: float = 1e-3
    max_parameters: int = 3000


@dataclass(kw_only=True, eq=False, repr=False)
class TorchOptimizerConfig(OptimizerConfig):
    """Any other class of `torch.optim`: `name` is the class, `options` its keyword arguments."""

    options: dict[str, Any] = field(default_factory=dict)

    def hyperparameters(self) -> dict[str, Any]:
        """`lr` and the options."""
        return {"lr": self.lr, **self.options}


# --- schedule -------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ScheduleConfig(Keys):
    """How the learning rate changes through the run."""

    name: str = MISSING


@dataclass(kw_only=True, eq=False, repr=False)
class InverseTimeConfig(ScheduleConfig):
    """η_t = η / (1 + decay · t), t counted in steps."""

    decay: float = 0.001


@dataclass(kw_only=True, eq=False, repr=False)
class StepConfig(ScheduleConfig):
    """The rate times `gamma` after every `every` epochs."""

    every: int = 20
    gamma: float = 0.1


@dataclass(kw_only=True, eq=False, repr=False)
class CosineConfig(ScheduleConfig):
    """Half a cosine from the rate down to `final` times the rate."""

    final: float = 0.0


@dataclass(kw_only=True, eq=False, repr=False)
class WarmupCosineConfig(CosineConfig):
    """A linear rise over the first fraction `warmup` of the steps, then half a cosine."""

    warmup: float = 0.05


# --- loss -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class LossConfig(Keys):
    """What is minimised, apart from penalties. Keys that a loss does not take stay as they are here; an
    output of null is the first of its loss."""

    name: str = "auto"
    output: str | None = None
    label_smoothing: float = 0.0
    delta: float = 1.0
    class_weight: str | dict[str, float] = "none"


# --- the run --------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class TrainConfig(Keys):
    """Every key of `ffn-train`. `check` lists the bounds."""

    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    loss: LossConfig = MISSING
    lr: float = 0.005
    epochs: int = 50
    batch_size: int | Literal["full"] = 32
    drop_last: bool = False
    seed: int = 0
    init_seed: int | None = None
    order_seed: int | None = None
    l2: float = 0.0
    l1: float = 0.0
    engine: str = "auto"
    gradient: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    name: str | None = None
    force: bool = False
    retry: str | None = None
    status: bool = False
    checkpoint_seconds: float = 5.0
    stage: str | None = None
    log_every: int = 10
    log_curvature: int = 0
    log_mistakes: bool = False
    log_scores: bool = False
    trajectory: bool = False
    keep: str = "best"
    monitor: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    max_runs: int = 10_000
    chunk: int = 64
    chunk_file: str | None = None

    def seed_of(self, what: Literal["init", "order"]) -> int:
        """The seed of the initial weights, or of the order in which epochs visit the rows."""
        own = self.init_seed if what == "init" else self.order_seed
        return self.seed if own is None else own

    @property
    def monitored(self) -> str:
        """The tag whose best value makes the best epoch, where the data have the split it is of."""
        return self.monitor or tags.PRIMARY[self.task].tag("val")

    @property
    def task(self) -> tags.Task:
        """What the network is trained for."""
        return cast(tags.Task, self.data.task)


@dataclass(kw_only=True, eq=False, repr=False)
class LectureConfig(Keys):
    """Every key of `ffn-lecture`."""

    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    topic: str | list[str] = "all"
    save: str | None = None
    seed: int = 0


@dataclass(kw_only=True, eq=False, repr=False)
class CompareConfig(Keys):
    """Every key of `ffn-compare`."""

    runs: str | list[str] | None = None
    by: str | list[str] | None = None
    tuned: str | list[str] | None = None
    workloads: str | list[str] | None = None
    metric: str | None = None
    aggregate: str = "iqm"
    reference: str | None = None
    target: float | None = None
    candidate: str | None = None
    tensorboard: bool = False
    save: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class LandscapeConfig(Keys):
    """Every key of `ffn-landscape`."""

    run: str | list[str] | None = None
    at: str = "last"
    curvature: bool = False
    part: str = "train"
    samples: int | None = None
    directions: int = 5
    points: int | None = None
    extent: float = 1.0
    seed: int = 0
    tensorboard: bool = False
    save: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class RaceConfig(Keys):
    """Every key of `ffn-race`."""

    surface: str = "saddle"
    run: str | None = None
    at: str | None = None
    optimizers: str | list[str] | None = None
    steps: int = 200
    lr: float | dict[str, float] | None = None
    budget: int = 25
    rates: list[float] = field(default_factory=lambda: [1e-4, 1e2])
    start: list[float] | None = None
    seed: int = 0
    animation: bool = True
    tensorboard: bool = False
    save: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class RowsConfig(Keys):
    """A table whose rows are to be predicted."""

    path: str | None = None
    target: str | None = None
    delimiter: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class PredictConfig(Keys):
    """Every key of `ffn-predict`."""

    run: str | None = None
    at: str | None = None
    data: RowsConfig = MISSING
    split: str | None = None
    out: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class ExportConfig(Keys):
    """Every key of `ffn-export`."""

    run: str | None = None
    at: str | None = None
    to: str | None = None


LOSS_OF_TASK: dict[tags.Task, str] = {"classification": "cross_entropy", "regression": "squared"}
"""What `loss=auto` means."""


def default_output(loss: str) -> str:
    """The output function of a loss where `loss.output` is null."""
    return "softmax" if loss == "cross_entropy" else "identity"


SCHEMA: dict[str, dict[str, type]] = {
    "data": {
        "digits": SplitDataConfig,
        "csv": CsvConfig,
        "arrays": ArraysConfig,
        "synthetic": SyntheticConfig,
        "moons": MoonsConfig,
        "circles": CirclesConfig,
        "spirals": SpiralsConfig,
        "xor": XorConfig,
        "gaussians": GaussiansConfig,
        "friedman": FriedmanConfig,
        "torchvision": TorchvisionConfig,
    },
    "model": {"hidden": HiddenConfig, "mlp": MlpConfig, "linear": LinearConfig},
    "optimizer": {
        "lbfgs": LbfgsConfig,
        "newton": NewtonConfig,
        "torch": TorchOptimizerConfig,
    },
    "schedule": {
        "constant": ScheduleConfig,
        "inverse_time": InverseTimeConfig,
        "step": StepConfig,
        "cosine": CosineConfig,
        "warmup_cosine": WarmupCosineConfig,
    },
    "loss": {"loss": LossConfig},
}
GROUPS = tuple(SCHEMA)
