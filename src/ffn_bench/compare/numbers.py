"""`comparison.json`: every number of a comparison for a program, as comparison.schema.json describes it."""

from __future__ import annotations

import math
from typing import Any

from ffn_bench.compare import verdict
from ffn_bench.compare.pairs import Pair, statements
from ffn_bench.compare.statistics import SIGNIFICANT, Interval
from ffn_bench.compare.study import Study
from ffn_bench.run_folder import identity

FORMAT = 2
"""Of comparison.json."""


def number(x: float) -> float | str | None:
    """A number as JSON has it: "inf" and "-inf" for infinities, null for what was not computed."""
    if math.isnan(x):
        return None
    return x if math.isfinite(x) else "inf" if x > 0 else "-inf"


def metric(x: float) -> float | str | None:
    """The same of a metric, which is infinite only where runs failed."""
    return "failed" if math.isinf(x) else number(x)


def _interval(interval: Interval, of: Any = number) -> dict[str, Any]:
    return {"estimate": of(interval.estimate), "low": of(interval.low), "high": of(interval.high)}


def as_dict(study: Study) -> dict[str, Any]:
    """What `comparison.json` holds. A key is absent where nothing was run for it."""
    return {
        "format": FORMAT,
        "protocol": identity.PROTOCOL,
        "protocol_of_runs": study.runs[0].protocol,
        "metric": study.metric,
        "selecting": study.selecting,
        "axes": {"by": study.axes.compared, "tune": study.axes.tuned, "workloads": study.axes.workloads},
        "workloads": study.workloads,
        **({"target": {"values": study.targets, "of": study.target_of}} if study.targets else {}),
        "verdict": {
            "sentences": verdict.sentences(study),
            "claims": [
                {
                    "ahead": p.ahead,
                    "of": p.second if p.ahead == p.first else p.first,
                    "reservation": verdict.reservation(study, p.seen_from(p.ahead)).removeprefix(", but "),
                }
                for p in study.pairs
                if p.ahead
            ],
            "level": SIGNIFICANT,
            "statements": statements(study.complete, study.candidate) if study.complete > 1 else 0,
            "candidate": study.candidate,
            "still_training": study.running,
        },
        "competitors": [
            {
                "name": c.name,
                "runs": c.n,
                "complete": k < study.complete,
                "settings": {w: dict(cell.setting) for w, cell in c.cells.items()},
                "settings_tried": {w: len(cell.trials) for w, cell in c.cells.items()},
                "edges": {w: cell.edges for w, cell in c.cells.items() if cell.edges},
                "seeds": {w: [list(seed) for seed in cell.runs] for w, cell in c.cells.items()},
                "repeated_seeds": c.repeated,
                "share_of_seeds_won": number(c.proportion),
                "median": _interval(c.test, metric),
                "at_end": _interval(c.end, metric),
                "validation_mean": metric(c.validation),
                "description": {by: metric(x) for by, x in c.described.items()},
                **({"as_shipped": _interval(c.default, metric)} if c.against_default else {}),
                **({"against_shipped": _pair(c.against_default)} if c.against_default else {}),
                **(
                    {
                        "to_target": {axis: _interval(interval) for axis, interval in c.times.items()},
                        "optimality_gap": number(c.gap),
                    }
                    if study.targets and c.n
                    else {}
                ),
                "failed": {"runs": c.failed[0], "of": c.failed[1], "share": _interval(c.failures)},
            }
            for k, c in enumerate(study.competitors)
        ],
        "pairs": [_pair(p) for p in study.pairs],
        "first_against_shipped": [_pair(p) for p in study.against_defaults.values()],
        "notes": study.notes,
        "folders": [str(run.folder) for run in study.runs],
    }


def _pair(p: Pair) -> dict[str, Any]:
    return {
        "first": p.first,
        "second": p.second,
        "ahead": p.ahead,
        "seeds": p.seeds,
        "runs": p.runs,
        "won": p.won,
        "lost": p.lost,
        "tied": p.tied,
        "share_won": _interval(p.proportion),
        "median_difference": _interval(p.difference),
        "smallest_difference": number(p.span[0]),
        "largest_difference": number(p.span[1]),
        "means": [number(mean) for mean in p.means],
        "failed": list(p.failed),
        "ways_to_choose": number(p.choices),
        "p": [*p.p_values],
        "p_corrected": [number(p_) for p_ in p.adjusted],
    }
