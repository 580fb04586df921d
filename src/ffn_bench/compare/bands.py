"""Mean and band over seeds as TensorBoard runs, next to the runs that they summarise."""

from __future__ import annotations

import io

import numpy as np

from ffn_bench.compare.curves import band_of
from ffn_bench.compare.study import Study
from ffn_bench.engine.metrics import Measurement
from ffn_bench.plot_style import slug
from ffn_bench.run_folder.writers import TensorBoard, event_name


def event_files(study: Study) -> dict[str, bytes]:
    """Runs `tensorboard/<competitor>/mean`, `/lower` and `/upper`, with the tags of the runs themselves: the
    content of an event file each, by its name.

    The mean is over the runs of the chosen setting that were measured at a step, the band its bootstrap's;
    after a run has diverged it counts as the worst value, and a loss then has no mean.
    """
    files: dict[str, bytes] = {}
    for competitor in study.competitors:
        for workload, cell in competitor.cells.items():
            runs = [*cell.runs.values(), *cell.running]
            tags = sorted({tag for run in runs for tag in run.curves})
            bands = {tag: band_of(runs, tag, "mean", points=10_000) for tag in tags}
            name = slug(competitor.name) + (f"/{slug(workload)}" if len(study.workloads) > 1 else "")
            for line in ("mean", "lower", "upper"):
                points: dict[int, dict[str, float]] = {}
                for tag, band in bands.items():
                    if band is None:
                        continue
                    y = {"mean": band.center, "lower": band.low, "upper": band.high}[line]
                    for k in np.flatnonzero(np.isfinite(y)):
                        points.setdefault(int(band.x["steps"][k]), {})[tag] = float(y[k])
                if not points:  # two seeds have no band
                    continue
                writer = TensorBoard(content := io.BytesIO())
                writer.begin()
                for step in sorted(points):
                    writer.write(Measurement(step, 0, 0.0, points[step]))
                files[f"tensorboard/{name}/{line}/{event_name()}"] = content.getvalue()
    return files
