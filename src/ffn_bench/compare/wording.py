"""Numbers and findings in words: what the terminal, the report and the tables say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import short, shown
from ffn_bench.compare.pairs import statements
from ffn_bench.compare.results import Cell
from ffn_bench.compare.statistics import Interval
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.errors import printable
from ffn_bench.run_folder import identity
from ffn_bench.tags import NOT_MEASURED, quantity, words

AGGREGATES = {"iqm": "interquartile mean", "mean": "mean", "median": "median"}


def count(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def all_of(n: int, noun: str = "") -> str:
    """`the one seed`, `both seeds`, `all 3 seeds`; without a noun `both`."""
    every = "the one" if n == 1 else "both" if n == 2 else f"all {n:,}"
    return f"{every} {noun}{'s' * (n != 1)}" if noun else every


def values(tag: str, *numbers: float) -> list[str]:
    """Numbers of a metric with digits enough to tell them apart, up to rounding."""
    percent = quantity(tag).is_percent
    texts = [value(tag, x) for x in numbers]
    for digits in range(3, 9):
        if len(set(texts)) == len(set(numbers)) or not all(map(math.isfinite, numbers)):
            break
        texts = [f"{100 * x:.{digits}f} %" if percent else f"{x:.{digits + 2}g}" for x in numbers]
    return texts


def value(tag: str, x: float) -> str:
    """A metric; infinitely bad is a failure."""
    return "failed" if math.isinf(x) else quantity(tag).text(x, space=" ")


def worst(tag: str) -> str:
    """What a failed run counts as: `0`, `∞` or `−∞`."""
    return f"{quantity(tag).worst:g}".replace("inf", "∞").replace("-", "−")


def between(tag: str, interval: Interval) -> str:
    """A metric with its interval."""
    if not interval.known:
        return value(tag, interval.estimate)
    ends = ", ".join(value(tag, end).removesuffix(" %") for end in (interval.low, interval.high))
    return f"{value(tag, interval.estimate)} [{ends}]"


def apart(tag: str, interval: Interval) -> str:
    """A difference of metrics with its interval: of proportions in percentage points. ∞ is to a run that
    failed; where there is no middle there is nothing to tell."""
    measured = quantity(tag)
    if math.isnan(interval.estimate):
        return NOT_MEASURED

    def one(x: float) -> str:
        if math.isinf(x):
            return "+∞" if x > 0 else "−∞"
        return measured.difference(x).replace("-", "−")

    unit = " points" if measured.is_percent and math.isfinite(interval.estimate) else ""
    ends = f" [{one(interval.low)}, {one(interval.high)}]" if interval.known else ""
    return one(interval.estimate) + unit + ends


def amount(x: float) -> str:
    """Epochs, steps or seconds."""
    if math.isnan(x):
        return NOT_MEASURED
    return "∞" if math.isinf(x) else f"{x:,.0f}" if x >= 100 or x == round(x) else f"{x:.3g}"


def amount_between(interval: Interval) -> str:
    """The same with its interval."""
    ends = f" [{amount(interval.low)}, {amount(interval.high)}]" if interval.known else ""
    return amount(interval.estimate) + ends


def probability(x: float) -> str:
    """A probability or p-value, with digits enough to see on which side of the level of a claim it is."""
    if math.isnan(x):
        return NOT_MEASURED
    if 0 < x < 0.001:
        return "< 0.001"
    text = f"{x:.3f}"
    for digits in range(4, 8):
        if (float(text) <= statistics.SIGNIFICANT) == (x <= statistics.SIGNIFICANT):
            break
        text = f"{x:.{digits}f}"
    return text


def setting_of(cell: Cell) -> str:
    """The chosen setting: `lr 0.01, momentum 0.9`."""
    return ", ".join(f"{short(key)} {shown(v)}" for key, v in cell.setting)


def settings_of(competitor: Competitor) -> str:
    """The chosen settings of all workloads."""
    settings = {w: setting_of(cell) for w, cell in competitor.cells.items()}
    if len(set(settings.values())) <= 1:
        return next(iter(settings.values()), "")
    return "; ".join(f"{w}: {text}" for w, text in settings.items())


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def title(study: Study) -> str:
    """What is compared, on what."""
    keys = study.axes.compared
    what = " and ".join(short(k.removesuffix(".name")) for k in keys) or "seeds"
    where = study.workloads[0] if len(study.workloads) == 1 else f"{len(study.workloads)} workloads"
    tried = max(len(cell.trials) for c in study.competitors for cell in c.cells.values())
    without_axes = "One setting" if tried == 1 else f"The best of {tried} settings"
    return f"Which {what}, on {where}?" if keys else f"{without_axes}, on {where}"


def candidate_of(study: Study) -> str:
    """How the candidate was chosen."""
    return "was chosen by the search" if study.searched else "was named beforehand"


def facts(study: Study) -> dict[str, str]:
    """How the numbers were obtained."""
    cells = [cell for c in study.competitors for cell in c.cells.values()]
    trials = sorted({len(cell.trials) for cell in cells})
    seeds = sorted({seed for cell in cells for seed, _ in cell.runs}, key=str)
    tuning = sorted({r.config.get("seed") for cell in cells for t in cell.trials for r in t.runs}, key=str)
    names = [c.name for c in study.competitors]
    remaining = f" and {len(names) - 12} more" if len(names) > 12 else ""
    what = ", ".join(map(short, study.axes.compared)) or "nothing"
    rows = {"compared": f"{what}: {', '.join(names[:12])}{remaining}"}
    if study.axes.tuned:
        budget = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
        keys = ", ".join(study.axes.tuned)
        seed = "seed" if len(tuning) == 1 else "seeds"
        how = f" on {words(study.selecting)}, tuning {seed} {_ranges(tuning)}"
        trial = "trial" if trials == [1] else "trials"
        rows["tuned"] = f"{keys}: {budget} {trial} each,{how}"
    seed = "seed" if len(seeds) == 1 else "seeds"
    rows["reported"] = f"{seed} {_ranges(seeds)}" + ("; medians" if len(seeds) > 1 else "")
    if any(c.test.known for c in study.competitors):
        rows["reported"] += " with 95 % intervals (order statistics)"
    if len(study.workloads) > 1:
        rows["reported"] = f"{seed} {_ranges(seeds)}; medians of each workload, then their mean"
    if study.complete > 1:
        number = statements(study.complete, study.candidate)
        text = count(number, "statement")
        if study.candidate:
            text += f" ({study.candidate} {candidate_of(study).removeprefix('was ')})"
        rows["verdict"] = f"one vote a seed, exact sign test, Holm over {text}"
    if study.targets:
        shown_ = {w: value(study.selecting, t) for w, t in study.targets.items()}
        text = (
            next(iter(shown_.values()))
            if len(shown_) == 1
            else ", ".join(f"{w} {t}" for w, t in shown_.items())
        )
        rows["target"] = f"{words(study.selecting)} {text}, {study.target_of}"
    epochs = sorted({run.config.get("epochs") for run in study.runs}, key=str)
    named = {"batch": "batch_size", "network": "model.name", "hidden": "model.hidden", "": "model.activation"}
    properties = [f"{', '.join(map(str, epochs))} epochs"]
    for word, key in named.items():
        values = list(dict.fromkeys(shown(run.config[key]) for run in study.runs if key in run.config))
        if len(values) == 1:
            properties.append(f"{word} {printable(values[0])}".strip())
        elif values:
            properties.append(f"{len(values)} values of {key}")
    rows["runs"] = f"{len(study.runs):,}: {', '.join(properties)}"
    protocol = study.runs[0].protocol
    named_protocol = protocol if protocol is not None else "without one"
    of_runs = "" if protocol == identity.PROTOCOL else f" (runs: {named_protocol})"
    rows["protocol"] = f"version {identity.PROTOCOL}{of_runs}"
    return rows


def _ranges(numbers: Sequence[object]) -> str:
    """`0–9, 100`."""
    integers = sorted(n for n in numbers if isinstance(n, int))
    ranges: list[list[int]] = []
    for n in integers:
        if ranges and ranges[-1][-1] == n - 1:
            ranges[-1].append(n)
        else:
            ranges.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in ranges) or NOT_MEASURED
