"""What a reader must know to trust, or not to trust, the numbers of a comparison: a sentence each."""

from __future__ import annotations

import math
from collections import Counter

from ffn_bench.compare import statistics
from ffn_bench.compare.study import Study
from ffn_bench.compare.wording import value
from ffn_bench.tags import quantity, words


def notes(study: Study) -> list[str]:
    """The notes of a study, the weightiest first."""
    found = [*_runs(study), *_choice(study), *_validation(study)]
    if any(c.runs and max(run.co_trained_runs for run in c.runs) > 0 for c in study.competitors):
        found.append(
            "Runs were trained side by side: seconds are a run's share of the time of all, so they tell "
            "steps apart, not the cost of one optimizer's step."
        )
    machines = {run.machine for run in study.runs}
    if len(machines) > 1:
        found.append(
            f"Runs are from {len(machines)} machines or settings of one: seconds are not comparable."
        )
    return found


def _where(study: Study, name: str, workload: str) -> str:
    return f"{name} on {workload}" if len(study.workloads) > 1 else name


def _runs(study: Study) -> list[str]:
    """Of runs that failed, are missing, or repeat one another."""
    found = []
    stopped = Counter(run.status for c in study.competitors for run in c.runs if not run.ended)
    if stopped:
        total = sum(stopped.values())
        told = ", ".join(f"{n} {status}" for status, n in stopped.items())
        runs_have = "run has begun and has" if total == 1 else "runs have begun and have"
        counted = "it counts as failed" if total == 1 else "they count as failed"
        found.append(f"{total} {runs_have} not ended ({told}): {counted} until resumed.")
    if study.running:
        runs_are = "run is" if study.running == 1 else "runs are"
        found.append(f"{study.running} {runs_are} still training: nothing is claimed before all have ended.")
    missing = [
        _where(study, c.name, w)
        for c in study.competitors
        for w in study.workloads
        if w not in c.cells or not c.cells[w].runs
    ]
    if missing:
        found.append(f"No result of {', '.join(missing)}: ranked last, and in no pair.")
    seeds = {tuple(cell.runs) for c in study.competitors for cell in c.cells.values() if cell.runs}
    if len(seeds) > 1:
        found.append("Seeds are not the same everywhere: a pair is compared on the seeds that both have.")
    for c in study.competitors:
        for workload, cell in c.cells.items():
            where = _where(study, c.name, workload)
            if cell.twice:
                many = f"{cell.twice} runs have" if cell.twice > 1 else "a run has"
                found.append(
                    f"{where}: {many} the seed of another one; of such runs the worst that ended counts."
                )
            lost = sum(math.isnan(result.best) for result in cell.results.values())
            if lost:
                many = f"{lost} runs have" if lost > 1 else "a run has"
                metric = words(study.metric)
                found.append(f"{where}: {many} no {metric} at the chosen epoch, and leave the pairs.")
        if c.repeated:
            many = f"{c.repeated} seeds repeat" if c.repeated > 1 else "a seed repeats"
            found.append(f"{c.name}: {many} the run of another one bit by bit, and has no vote of its own.")
    return found


def _choice(study: Study) -> list[str]:
    """Of how settings were chosen."""
    found = []
    cells = [(c.name, w, cell) for c in study.competitors for w, cell in c.cells.items()]
    if any(cell.choices > 1 for _, _, cell in cells):
        found.append(
            "Settings were chosen (on validation) by the seeds that are reported, which flatters whoever had "
            "more of them: p-values are multiplied by the numbers of settings of both sides. +tune=… takes "
            "new seeds, and needs no such price."
        )
    for name, workload, cell in cells:
        where = _where(study, name, workload)
        if cell.incomplete:
            these = "1 setting has" if cell.incomplete == 1 else f"{cell.incomplete} settings have"
            found.append(f"{where}: {these} fewer seeds than others, and could not be chosen.")
        found += [f"{where}: {edge}; the best may lie beyond." for edge in cell.edges]
    worse = [c.name for c in study.competitors if c.against_default and c.against_default.won == 0
             and c.against_default.lost >= statistics.fewest(2)]  # fmt: skip
    if worse:
        found.append(
            f"Tuning made {', '.join(worse)} worse than as shipped: with one tuning seed, or a small "
            "validation part, chance chooses. More seeds help: hydra.sweeper.tuning_seeds=[0,100,200]."
        )
    return found


def _validation(study: Study) -> list[str]:
    """Where a leaderboard, which ranks by validation, would name another first."""
    known = [c for c in study.competitors[: study.complete] if not math.isnan(c.validation)]
    if len(known) < 2 or study.selecting == study.metric:
        return []
    sign = quantity(study.selecting).sign
    first = max(known, key=lambda c: sign * c.validation)
    if first is study.competitors[0]:
        return []
    leader = study.competitors[0]
    metric, selecting = words(study.metric), words(study.selecting)
    return [
        f"A leaderboard names {first.name} first: it ranks by mean {selecting} ({first.name} "
        f"{value(study.selecting, first.validation)}, {leader.name} "
        f"{value(study.selecting, leader.validation)}), on which settings and epochs were chosen. This "
        "report "
        f"ranks by seeds won on {metric}."
    ]
