"""Numbers and findings in words: what the terminal, the report and the tables say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import short, shown
from ffn_bench.compare.figures import AGGREGATES, name_of
from ffn_bench.compare.read import clean
from ffn_bench.compare.statistics import Interval
from ffn_bench.compare.study import Cell, Competitor, Pair, Study, is_ahead

NOTHING = "–"


def value(tag: str, x: float) -> str:
    """A metric: accuracies as per cent with two decimals, losses with four digits."""
    if math.isnan(x):
        return NOTHING
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{100 * x:.2f} %" if statistics.higher_is_better(tag) else f"{x:.4g}"


def between(tag: str, found: Interval) -> str:
    """A metric with its interval."""
    if not found.known:
        return value(tag, found.estimate)
    ends = ", ".join(value(tag, end).removesuffix(" %") for end in (found.low, found.high))
    return f"{value(tag, found.estimate)} [{ends}]"


def apart(tag: str, found: Interval) -> str:
    """A difference of metrics with its interval: accuracies in percentage points."""

    def one(x: float) -> str:
        if math.isnan(x):
            return NOTHING
        if math.isinf(x):
            return "+∞" if x > 0 else "−∞"
        text = f"{100 * x:+.2f}" if statistics.higher_is_better(tag) else f"{x:+.3g}"
        return text.replace("-", "−")

    unit = " points" if statistics.higher_is_better(tag) and math.isfinite(found.estimate) else ""
    ends = f" [{one(found.low)}, {one(found.high)}]" if found.known else ""
    return one(found.estimate) + unit + ends


def amount(x: float) -> str:
    """Epochs, steps or seconds."""
    if math.isnan(x):
        return NOTHING
    return "∞" if math.isinf(x) else f"{x:,.0f}" if x >= 100 or x == round(x) else f"{x:.3g}"


def amount_between(found: Interval) -> str:
    """The same with its interval."""
    ends = f" [{amount(found.low)}, {amount(found.high)}]" if found.known else ""
    return amount(found.estimate) + ends


def probability(x: float) -> str:
    """A probability or p-value."""
    if math.isnan(x):
        return NOTHING
    return "< 0.001" if 0 < x < 0.001 else f"{x:.3f}"


def setting_of(cell: Cell) -> str:
    """The chosen setting: `lr 0.01, momentum 0.9`."""
    return ", ".join(f"{short(key)} {shown(v)}" for key, v in cell.setting)


def settings_of(competitor: Competitor) -> str:
    """The chosen settings of all workloads."""
    found = {w: setting_of(cell) for w, cell in competitor.cells.items()}
    if len(set(found.values())) <= 1:
        return next(iter(found.values()), "")
    return "; ".join(f"{w}: {text}" for w, text in found.items())


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def title(study: Study) -> str:
    """What is compared, on what."""
    keys = study.axes.compared
    what = " and ".join(short(k.removesuffix(".name")) for k in keys) or "seeds"
    where = study.workloads[0] if len(study.workloads) == 1 else f"{len(study.workloads)} workloads"
    return f"Which {what}, on {where}?" if keys else f"One setting, on {where}"


def facts(study: Study) -> dict[str, str]:
    """What a reader must know of how the numbers came about."""
    runs = study.runs
    cells = [cell for c in study.competitors for cell in c.cells.values()]
    trials = sorted({len(cell.trials) for cell in cells})
    seeds = sorted({run.config.get("seed") for cell in cells for run in cell.runs}, key=str)
    tuning = sorted({r.config.get("seed") for cell in cells for t in cell.trials for r in t.runs}, key=str)
    names = [c.name for c in study.competitors]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    what = ", ".join(map(short, study.axes.compared)) or "nothing"
    found = {"compared": f"{what}: {', '.join(names[:12])}{more}"}
    if study.axes.tuned:
        budget = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
        keys = ", ".join(study.axes.tuned)
        how = f" on {name_of(study.selecting)}, tuning seeds {_ranges(tuning)}"
        found["tuned"] = f"{keys}: {budget} trials each,{how}"
    found["reported"] = f"seeds {_ranges(seeds)}; {AGGREGATES[study.aggregate]}"
    if any(c.test.known for c in study.competitors):
        found["reported"] += ", 95 % bootstrap intervals"
    if len(study.workloads) > 1:
        found["reported"] += "; of each workload, then their mean"
    if study.targets:
        shown_ = {w: value(study.selecting, t) for w, t in study.targets.items()}
        told = (
            next(iter(shown_.values()))
            if len(shown_) == 1
            else ", ".join(f"{w} {t}" for w, t in shown_.items())
        )
        found["target"] = f"{name_of(study.selecting)} {told}, {study.target_of}"
    epochs = sorted({run.config.get("epochs") for run in runs}, key=str)
    named = {"batch": "batch_size", "network": "model.name", "hidden": "model.hidden", "": "model.activation"}
    parts = [f"{', '.join(map(str, epochs))} epochs"]
    for word, key in named.items():
        values = list(dict.fromkeys(shown(run.config[key]) for run in runs if key in run.config))
        if len(values) == 1:
            parts.append(f"{word} {clean(values[0])}".strip())
        elif values:
            parts.append(f"{len(values)} values of {key}")
    found["runs"] = f"{len(runs):,}: {', '.join(parts)}"
    found["protocol"] = f"version {study.protocol}" if study.protocol is not None else "without a version"
    return found


def _ranges(numbers: Sequence[object]) -> str:
    """`0–9, 100`."""
    whole = sorted(n for n in numbers if isinstance(n, int))
    parts: list[list[int]] = []
    for n in whole:
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts) or NOTHING


def verdict(study: Study) -> list[str]:
    """The answer, in at most a handful of sentences."""
    metric, ranked = name_of(study.metric), [c for c in study.competitors if c.n]
    if not ranked:
        return ["No run has a result yet."]
    leader = ranked[0]
    chosen = f" with {settings_of(leader)}" if settings_of(leader) else ""
    many = "" if leader.n == 1 else f", {AGGREGATES[study.aggregate]} of {leader.n} runs"
    reached = f"{between(study.metric, leader.test)} {metric}"
    if len(ranked) == 1:
        return [f"{leader.name} reaches {reached}{many}{chosen}.", *_reservations(study, leader)]
    found = [f"{leader.name} comes first{chosen}: {reached}{many}."]
    pairs = [p for c in ranked[1:] if (p := study.pair(leader.name, c.name)) is not None]
    ahead = [p for p in pairs if is_ahead(p)]
    level = [p for p in pairs if not is_ahead(p)]
    if all(math.isnan(p.p_value) for p in pairs):
        found.append(
            f"How sure that is cannot be said from {leader.n} run{'s' * (leader.n != 1)} each: "
            f"{statistics.ENOUGH} seeds give intervals, ten make them good."
        )
    else:
        if level:
            but = "But it" if not ahead else "It"
            found.append(f"{but} is not shown to differ from {_told(study, level)}.")
        if ahead:
            rest = "all others" if not level and len(ahead) > 3 else _told(study, ahead)
            found.append(f"It is ahead of {rest}; paired by seed, p < 0.05 after Holm's correction.")
        spoilt = [p for q in ahead if (p := study.shipped.get(q.second)) and not is_ahead(p)]
        if spoilt:
            told = [f"{p.second} ({_behind(study, p)})" for p in spoilt[:4]]
            found.append(f"But it is not shown to be ahead of {listed(told)} as shipped, without tuning.")
        if not level and ahead:
            nearest = ahead[0]
            if len(ahead) > 3:
                found.append(f"The nearest is {nearest.second}, {_behind(study, nearest)}.")
    return found + _reservations(study, leader)


def _told(study: Study, pairs: Sequence[Pair]) -> str:
    """Names with how far behind they are, the first few of them."""
    told = [f"{p.second} ({_behind(study, p)})" for p in pairs[:3]]
    more = [p.second for p in pairs[3:8]]
    rest = len(pairs) - 8
    return listed([*told, *more, *([f"{rest} more"] if rest > 0 else [])])


def _behind(study: Study, pair: Pair) -> str:
    """How far the second of a pair is behind."""
    found = pair.difference
    beside = found.known and (found.low > 0 or found.high < 0) and not is_ahead(pair)
    doubt = f", p {probability(pair.adjusted)}" if beside and not math.isnan(pair.adjusted) else ""
    return f"difference {apart(study.metric, found)}{doubt}"


def _reservations(study: Study, leader: Competitor) -> list[str]:
    """What of the leader must not go unsaid."""
    found = []
    if leader.final_failed:
        found.append(f"{leader.final_failed} of its {leader.n} runs diverged.")
    if any(cell.edges for cell in leader.cells.values()):
        found.append("Its setting lies at the edge of what was tried.")
    default = leader.against_default
    if not math.isnan(default.estimate):
        sure = default.known and (default.low > 0 or default.high < 0)
        doubt = "" if sure or not default.known else ", which may be chance"
        found.append(f"Tuning brought it {apart(study.metric, default)} over the setting as shipped{doubt}.")
    return found
