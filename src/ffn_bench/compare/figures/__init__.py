"""The figures of a comparison: each a function from a `Study` to a figure, or None where it says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
from matplotlib.figure import Figure

from ffn_bench.compare.curves import AXES_OF_TIME
from ffn_bench.compare.figures import outcomes, over_time, trials, workloads
from ffn_bench.compare.study import Study
from ffn_bench.plot_style import STYLE, slugs


def draw_all(study: Study) -> dict[str, Figure]:
    """Every figure that has something to say, by the name of its file."""
    with mpl.rc_context(STYLE):
        return {name: figure for name, figure in _figures(study) if figure is not None}


def _figures(study: Study) -> Iterator[tuple[str, Figure | None]]:
    for workload, tail in slugs(study.workloads).items():
        tail = f"-{tail}" if len(study.workloads) > 1 else ""
        for axis in AXES_OF_TIME:
            yield f"curves-{axis}{tail}", over_time.curves(study, workload, axis)
        yield f"sensitivity{tail}", trials.sensitivity(study, workload)
        yield f"budget{tail}", trials.budget(study, workload)
        yield f"time-to-target{tail}", over_time.time_to_target(study, workload)
        yield f"parallel{tail}", trials.parallel_coordinates(study, workload)
    yield "finals", outcomes.finals(study)
    yield "seeds-won", outcomes.seeds_won(study)
    yield "failures", outcomes.failures(study)
    yield "profile", workloads.profile(study)
    yield "critical-difference", workloads.critical_difference(study)
