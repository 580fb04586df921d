"""The commands as functions of Python: `fit`, `sweep`, `load`.

Each does what its command does, by the same code: the same checks, the same folders, the same bits. The
process is afterwards as it was; calls of several threads take turns. `import ffn_bench` offers these names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from ffn_bench import tags
from ffn_bench.checks import check_at, one_of
from ffn_bench.errors import UserError
from ffn_bench.results.run import Run
from ffn_bench.results.sweep import Sweep

if TYPE_CHECKING:
    from ffn_bench.configuration import schema
    from ffn_bench.data.rows import Raw

__all__ = ["Run", "Sweep", "fit", "load", "sweep"]

CHOICE = (str, Path, Mapping)
"""What names a data set, or seems to."""
COLUMN_KEYS = ("data.task", "data.missing", "data.drop", "data.categories", "data.weight")
"""What is done with a frame's columns."""
OF_A_FILE = 'for a file write data=dict(name="csv", path=…, target=…)'


def fit(
    data: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    task: str | None = None,
    progress: bool = True,
    **keys: Any,
) -> Run:
    """Train a run as `ffn-train` does; a run of its `name` that has begun is resumed, one that has ended is
    returned.

    `data` is the name of a data set (without one the digits), a mapping of the keys of one, a pair `(X, y)`
    (`X [n, n_features]` numbers, `y [n]` labels of any kind), or a frame of Polars or pandas, whose column
    `target` has the labels. `task` is the key `data.task`: in a `"regression"` y has numbers, `[n]` or
    `[n, n_targets]`, and `target` may name several columns. `**{"data.missing": "impute"}`, `data.drop`,
    `data.categories` and `data.weight` say what is done with a frame's columns. `keys` are those of the
    command: `lr=0.1`, `optimizer="sgd"`; keys of a group stand in a mapping, with `name` for its choice,
    `optimizer=dict(name="sgd", momentum=0.9)`, or have dots, `**{"model.hidden": [64]}`. Values arrive as
    they are. `progress`: whether a bar shows how it goes, in a notebook or on a terminal.

    A run that diverges is returned, with that status. Raises `UserError` for a person's mistake, with the
    command's text; KeyboardInterrupt for ^C, and the run is saved as interrupted.
    """
    keys, given = _with_data(keys, data, target, task)
    _check_several(keys)
    return fit_rows(given, progress, keys)


def fit_rows(given: Raw | None, progress: bool, keys: Mapping[str, Any]) -> Run:
    """`fit` where the keys have those of the data, and `given` are the rows of `data=arrays`."""
    from ffn_bench import train
    from ffn_bench.command_line import in_process, keywords
    from ffn_bench.command_line.python_view import PythonRunView, noted

    composed = in_process.command(keywords.overrides(keys), sweeps=False, given=given)
    with noted() as notes, composed as (cfg, _):
        folder = train.train_composed(cfg, PythonRunView(progress, notes))
        at = "last" if cfg.keep == "last" else "best"
    return Run(folder, at)


def sweep(
    data: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    task: str | None = None,
    progress: bool = True,
    **keys: Any,
) -> Sweep:
    """Train a run for every combination of values, as `ffn-train -m` does.

    As `fit`, but that a list, tuple, range or array holds values that are tried: `seed=range(5)`,
    `optimizer=["sgd", "adam"]`, `model=dict(hidden=[[64], [32, 32]])`. Runs that fail are rows with that
    status, and a warning. Runs are trained in worker processes, or one after the other where this process
    has threads."""
    from ffn_bench.command_line import in_process, keywords
    from ffn_bench.command_line.python_view import PythonSweepView, noted
    from ffn_bench.run_folder import finding
    from ffn_bench.sweeps.sweep import LaunchDisplay, RunFailed

    keys, given = _with_data(keys, data, target, task, swept=True)
    composed = in_process.command(keywords.swept(keys), sweeps=True, given=given)
    with noted() as notes, composed as (cfg, context):
        sweeper = in_process.sweeper(cfg, context)
        sweeper.shown = LaunchDisplay(view=functools.partial(PythonSweepView, progress, notes))
        try:
            sweeper.sweep(in_process.task_overrides(cfg))
        except RunFailed as e:
            notes.append(f"{e.where}: {e.what}; see its train.log")
        folder = Path(sweeper.config.hydra.sweep.dir)
        at = "last" if cfg.keep == "last" else "best"
    return Sweep(folder, list(map(finding.from_here, finding.find([str(folder)]))), at)


def load(path: str | Path, at: str = "best") -> Run | Sweep:
    """What a folder has: a `Run`, or a `Sweep` of all runs below it. Globs name several folders.

    `at` says which weights predict: of the `best` epoch, the `last` checkpoint, or `epoch:N`. Nothing in a
    folder is executed. Raises `UserError` (status 4) for folders without runs, and for what is damaged.
    """
    from ffn_bench.run_folder import finding

    check_at(at)
    if not str(path).strip():
        raise UserError("path", "is empty", "name a folder of runs or sweeps")
    folders = finding.find([str(path)])
    if (Path(path) / "run.json").exists():
        return Run(finding.from_here(folders[0]), at)
    return Sweep(path, list(map(finding.from_here, folders)), at)


def _with_data(
    keys: dict[str, Any],
    data: Any,
    target: str | Sequence[str] | None,
    task: str | None,
    swept: bool = False,
) -> tuple[dict[str, Any], Raw | None]:
    """The keys with those of the data, and the rows where they are given; `swept` keys have lists of
    values."""
    if task is not None:
        one_of(task, tags.TASKS, "task")
        keys = {"data.task": task, **keys}
    if data is None or isinstance(data, CHOICE) or _are_choices(data):
        if target is not None:
            what = "is given, and data is no frame"
            raise UserError("target", what, OF_A_FILE)
        _check_choice(data, keys)
        return keys if data is None else {"data": data, **keys}, None
    from ffn_bench.data import arrays

    config, own = _columns_config(keys)
    raw = arrays.raw_of(data, target, config)
    if swept:
        keys |= {key: [value] for key, value in own.items() if isinstance(value, (list, tuple))}
    return {**arrays.keys_of(raw), **keys}, raw


def _columns_config(keys: Mapping[str, Any]) -> tuple[schema.ArraysConfig, dict[str, Any]]:
    """Those of a run's keys that say what is done with a frame's columns, and as they were given. Raises
    `UserError` for values that they cannot have."""
    from ffn_bench.configuration import parsing, schema, validation

    own = {key: value for key, value in keys.items() if key in COLUMN_KEYS}
    hints = get_type_hints(schema.ArraysConfig)
    values = {}
    for key, value in own.items():
        name = key.removeprefix("data.")
        plain = list(value) if isinstance(value, tuple) else value
        values[name] = parsing.fitted(plain, hints[name], key)
    config = schema.ArraysConfig(name="arrays", **values)
    validation.check_data(config)
    return config, own


def _check_choice(data: Any, keys: Mapping[str, Any]) -> None:
    """Raise `UserError` for a file where a data set's name belongs, and for a file's keys without a name."""
    for choice in [data] if isinstance(data, CHOICE) else data or ():
        if isinstance(choice, Mapping):
            if "path" in choice and "name" not in choice and "experiment" not in keys:
                raise UserError("data", "has a path and no name", OF_A_FILE)
        elif isinstance(choice, Path) or choice.startswith(("/", "~", ".")) or Path(choice).suffix:
            raise UserError("data", f"{str(choice)!r} is a path, not the name of a data set", OF_A_FILE)


def _are_choices(data: Any) -> bool:
    """Whether these are data sets to sweep over, and no pair (X, y)."""
    return isinstance(data, (list, tuple)) and len(data) > 0 and all(isinstance(one, CHOICE) for one in data)


def _check_several(keys: Mapping[str, Any]) -> None:
    """Raise `UserError` for several values of a key that has one; `model.hidden` and its like have lists."""
    for key, value in keys.items():
        if isinstance(value, range) or (isinstance(value, (list, tuple)) and "." not in key):
            raise UserError(key, "lists several values", "use ffn_bench.sweep to try them one by one")
