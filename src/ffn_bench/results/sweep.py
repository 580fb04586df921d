"""A sweep that was trained: its runs as a table, and what they say about each other."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffn_bench import tags
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.results.run import Run, read_all, recorded

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from ffn_bench.compare.study import Study

ALWAYS = ("optimizer.name", "lr", "seed")
"""Settings that `Sweep.frame` has though they may be the same in all runs."""
HANDLING = ("name", "optimizer.lr", "stage", "force", "retry")
"""Settings that it never has: they say how a run is handled, or repeat another."""


class Sweep(Sequence[Run]):
    """The runs below a folder, in the order of their names. `problems` names those that cannot be read.

    Raises `UserError` (status 4) where none can be.
    """

    def __init__(self, path: str | Path, folders: Sequence[Path], at: str = "best") -> None:
        self.path = Path(path)
        self.runs, self.problems = read_all(folders, at)
        if not self.runs:
            raise UserError(str(path), f"no run can be read: {self.problems[0]}", "name others", RUN_FOLDER)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: Any) -> Any:
        return self.runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def frame(self) -> pl.DataFrame:
        """A row a run: `run`, its folder's name; the settings that differ, and optimizer, rate and seed;
        `status`; `epoch`, the best one, and what was measured at its end by tag; at the final one where there
        is no best."""
        import polars as pl

        configs = [run.config for run in self.runs]
        keys = dict.fromkeys(key for config in configs for key in config if key not in HANDLING)
        shown = [key for key in keys if key in ALWAYS or _is_varied(key, configs)]
        tasks = [task for task in tags.TASKS if task in {run.task for run in self.runs}]
        tags_of_tasks = dict.fromkeys(tag for task in tasks for tag in tags.MONITORED_IN[task])
        rows: list[dict[str, Any]] = []
        for run, config in zip(self.runs, configs, strict=True):
            measured = run.measured("best") or run.measured("final")
            settings = {key: _cell(config.get(key)) for key in shown}
            results = {tag: measured.get(tag) for tag in ("epoch", *tags_of_tasks)}
            rows.append({"run": run.path.name, **settings, "status": run.status, **results})
        frame = pl.DataFrame(
            [{k: row[k] for k in row if k not in shown} for row in rows], infer_schema_length=None
        )
        columns = [pl.Series(key, [row[key] for row in rows], strict=False) for key in shown]
        return frame.select("run", *columns, *frame.columns[1:])

    def compare(
        self,
        *,
        by: str | list[str] | None = None,
        tuned: str | list[str] | None = None,
        workloads: str | list[str] | None = None,
        metric: str | None = None,
        aggregate: str = "iqm",
        reference: str | None = None,
        target: float | None = None,
        candidate: str | None = None,
    ) -> Comparison:
        """What `ffn-compare` concludes of the runs; nothing is written. Raises the same errors."""
        from ffn_bench.compare import command
        from ffn_bench.configuration.schema import CompareConfig

        cfg = CompareConfig(
            by=by,
            tuned=tuned,
            workloads=workloads,
            metric=metric,
            aggregate=aggregate,
            reference=reference,
            target=target,
            candidate=candidate,
        )
        command.check(cfg)
        return Comparison(command.study_of(cfg, recorded(self.runs), self.problems))

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r}, {len(self.runs)} runs)"

    def _repr_html_(self) -> str:
        from ffn_bench.results.display import sweep_html

        return sweep_html(self)


def _is_varied(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting differs between runs, and not just because they chose another option of its group."""
    choice = f"{key.partition('.')[0]}.name"
    values: dict[Any, set[str]] = {}
    for config in configs:
        chosen = config.get(choice) if "." in key and key != choice else None
        values.setdefault(chosen, set()).add(repr(config.get(key)))
    return any(len(each) > 1 for each in values.values())


def _cell(value: Any) -> Any:
    """A setting as a cell of a frame: lists as text."""
    return str(value) if isinstance(value, (list, dict)) else value


@dataclass
class Comparison:
    """What a comparison concludes; `print` it, or look at its parts."""

    study: Study = field(repr=False)
    """All its numbers."""

    @property
    def sentences(self) -> list[str]:
        """The verdict: what is claimed and how certain that is, or why nothing is."""
        from ffn_bench.compare import verdict

        return verdict.sentences(self.study)

    @property
    def notes(self) -> list[str]:
        """What a reader must know to trust the numbers."""
        return list(self.study.notes)

    @property
    def table(self) -> pl.DataFrame:
        """A row a competitor, the best first: the table `summary` of ffn-compare."""
        import polars as pl

        from ffn_bench.compare import tables

        frame = pl.read_csv(io.StringIO(tables.summary(self.study).csv()), infer_schema_length=None)
        return frame.select(name for name in frame.columns if frame[name].null_count() < len(frame))

    def figure(self, name: str = "curves-epochs") -> Figure:
        """One of the report's figures: curves, final scores, seeds won … Raises `UserError` for one that says
        nothing about these runs."""
        from ffn_bench.compare.figures import draw_all
        from ffn_bench.errors import nearest
        from ffn_bench.results.curves import shown

        figures = draw_all(self.study)
        if name not in figures:
            todo = f"use one of: {', '.join(figures)}"
            raise UserError("figure", f"there is no {name!r} of these runs{nearest(name, figures)}", todo)
        return shown(figures[name])

    def __str__(self) -> str:
        return "\n".join([*self.sentences, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from ffn_bench.results.display import comparison_html

        return comparison_html(self)
