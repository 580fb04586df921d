"""What a reader must know to trust, or not to trust, the numbers of a comparison: a sentence each."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import shown
from ffn_bench.compare.results import result_of
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.compare.wording import count, listed, value
from ffn_bench.run_folder.recorded_run import RecordedRun
from ffn_bench.sweeps.leaderboard import leaderboard, score_of
from ffn_bench.tags import SCORE, words

STOPPED = {"failed": "stopped by an error"}
"""Statuses in words, where their names do not say it."""


def notes(study: Study) -> list[str]:
    """The notes of a study, the weightiest first."""
    found = [*_parts(study), *_runs(study), *_choice(study), *_leaderboard(study)]
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


def _parts(study: Study) -> list[str]:
    """Of parts of the data that there are not."""
    measured = {tag for run in study.runs for tag in run.curves}
    if study.selecting not in measured:
        return ["No validation part: the metric is read at the end of training."]
    if study.metric == study.selecting and study.metric.replace("/val", "/test") not in measured:
        chosen = "settings and epochs were" if _chose(study) else "each run's epoch was"
        return [
            f"No test part: {words(study.metric)} is reported, on which {chosen} chosen, so that it is "
            "too good."
        ]
    return []


def _chose(study: Study) -> bool:
    return any(len(cell.trials) > 1 for c in study.competitors for cell in c.cells.values())


def _runs(study: Study) -> list[str]:
    """Of runs that failed, are missing, or repeat one another."""
    found = []
    stopped = Counter(run.status for c in study.competitors for run in c.runs if run.failed and not run.ended)
    if stopped:
        total = sum(stopped.values())
        told = ", ".join(f"{n} {STOPPED.get(status, status)}" for status, n in stopped.items())
        they = "it counts as failed until it is" if total == 1 else "they count as failed until they are"
        found.append(f"{count(total, 'run')} did not come to an end ({told}): {they} resumed and finished.")
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
        last = "ranked last, and " * bool(study.complete)
        of = ", with numbers that are of its other workloads" if len(study.workloads) > 1 else ""
        found.append(f"No result of {', '.join(missing)}: {last}in no pair{of}.")
    cells = [cell for c in study.competitors for cell in c.cells.values() if cell.runs]
    differ = [
        word
        for word, k in (("seeds", 0), ("splits", 1))
        if len({frozenset(seed[k] for seed in cell.runs) for cell in cells}) > 1
    ]
    if differ or len({frozenset(cell.runs) for cell in cells}) > 1:
        what = " and ".join(differ or ["seeds", "splits"])
        found.append(
            f"{what.capitalize()} are not the same everywhere: a pair is compared on the {what} that both "
            "have."
        )
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
                runs = f"{lost} runs have" if lost > 1 else "a run has"
                leave = "leave" if lost > 1 else "leaves"
                metric = words(study.metric)
                found.append(f"{where}: {runs} no {metric} at the chosen epoch, and {leave} the pairs.")
        if c.repeated:
            many = f"{c.repeated} seeds repeat" if c.repeated > 1 else "a seed repeats"
            own = "have no votes of their own" if c.repeated > 1 else "has no vote of its own"
            found.append(f"{c.name}: {many} the run of another one bit by bit, and {own}.")
    return found


def _choice(study: Study) -> list[str]:
    """Of how settings were chosen."""
    found = []
    cells = [(c.name, w, cell) for c in study.competitors for w, cell in c.cells.items()]
    if any(cell.choices > 1 for _, _, cell in cells):
        chosen = "Settings were chosen (on validation) by the seeds that are reported, which flatters"
        if study.pairs:
            found.append(
                f"{chosen} whoever had more of them: p-values are multiplied by the numbers of settings of "
                "both sides. +tune=… takes new seeds, and needs no such price."
            )
        else:
            found.append(f"{chosen} them: intervals are wider for it. +tune=… takes new seeds.")
    for name, workload, cell in cells:
        where = _where(study, name, workload)
        if cell.incomplete:
            these = "1 setting has" if cell.incomplete == 1 else f"{cell.incomplete} settings have"
            found.append(f"{where}: {these} fewer seeds than others, and could not be chosen.")
        found += [f"{where}: {edge}; the best may lie beyond." for edge in cell.edges]
    worse = [
        f"{c.name} on all {c.against_default.lost} seeds"
        for c in study.competitors
        if c.against_default
        and c.against_default.won == 0
        and c.against_default.lost == c.against_default.seeds >= statistics.fewest(2)
    ]
    if worse:
        found.append(
            f"Tuned worse than as shipped: {listed(worse)}. No claim is made of it: among many equals this "
            "happens by chance; but with one tuning seed, or a small validation part, chance chooses the "
            "setting, too. More seeds help: hydra.sweeper.tuning_seeds=[0,100,200]."
        )
    return found


def _leaderboard(study: Study) -> list[str]:
    """Where the leaderboard of these runs shows another one first, by its own rule and numbers."""
    if study.complete < 2 or study.running:
        return []
    runs = [run for run in study.runs if run.config.get("stage") != "tune"] or study.runs
    rows, _, _ = leaderboard([_shown(study, run) for run in runs], [_summary(run) for run in runs])
    leader = study.competitors[0]

    def is_leader(row: dict[str, Any]) -> bool:
        told = row["settings"]
        return told["competitor"] == leader.name and not told.get("stage") and _is_chosen(leader, row)

    def score(row: dict[str, Any]) -> str:
        return value(SCORE.name, score_of(row))

    top, ours = rows[0], next((row for row in rows if is_leader(row)), None)
    if ours is None or not math.isfinite(score_of(top)):
        return []
    part = "validation" if math.isfinite(top["val"][0]) else "test"
    level = [row for row in rows if not row["bad"] and not top["bad"] and score(row) == score(top)]
    if ours in level:
        names = list(dict.fromkeys([_label(study, ours), *(_label(study, row) for row in level)]))
        if all(map(is_leader, level)):
            return []
        alike = listed(names[:4] if len(names) < 5 else [*names[:4], f"{len(names) - 4} more"])
        return [
            f"A leaderboard shows {alike} with the same mean {part} {SCORE.name}, as printed ({score(top)}): "
            "which of them stands first there says nothing."
        ]
    if ours is top:
        return []
    bad = f", {ours['bad']} of {ours['runs']}" if ours["bad"] else ""
    first = _label(study, top)
    behind = ", settings with a run that did not finish behind all others" if ours["bad"] else ""
    return [
        f"A leaderboard shows {first} first: it ranks by mean {part} {SCORE.name} of the runs that finished"
        f"{behind} ({first} {score(top)}; {_label(study, ours)} {score(ours)}{bad}). This report ranks by "
        f"seeds won on {words(study.metric)}."
    ]


def _shown(study: Study, run: RecordedRun) -> dict[str, str]:
    """What tells a run's row of the leaderboard from others."""
    return {
        "competitor": study.axes.competitor(run),
        "setting": _setting(study.axes.setting(run)),
        "workload": study.axes.workload(run),
        "split": str(run.config.get("data.split_seed")),
        "stage": "as shipped" if run.config.get("stage") == "default" else "",
        "seed": str(run.config.get("seed")),
    }


def _setting(setting: tuple[tuple[str, Any], ...]) -> str:
    return ", ".join(f"{key} {shown(x)}" for key, x in setting)


def _label(study: Study, row: dict[str, Any]) -> str:
    """A row's name, as far as others differ from it; its setting where the report chose another."""
    told = row["settings"]
    one = next(c for c in study.competitors if c.name == told["competitor"])
    stage = f" {told['stage']}" if told.get("stage") else ""
    setting = "" if stage or _is_chosen(one, row) else f" with {told['setting']}"
    workload = f" on {told['workload']}" if "workload" in told else ""
    split = f" on split {told['split']}" if "split" in told else ""
    return f"{told['competitor']}{stage}{setting}{workload}{split}"


def _is_chosen(competitor: Competitor, row: dict[str, Any]) -> bool:
    """Whether a row is of a setting that the report chose for it."""
    chosen = {_setting(cell.setting) for cell in competitor.cells.values()}
    return "setting" not in row["settings"] or row["settings"]["setting"] in chosen


def _summary(run: RecordedRun) -> dict[str, Any]:
    """What the leaderboard takes from a run's summary: it ranks by the score, whatever is compared."""
    val, test = SCORE.tag("val"), SCORE.tag("test")
    selected, tested = result_of(run, val, val), result_of(run, test, val)
    best = {tag: x for tag, x in ((val, selected.best), (test, tested.best)) if not math.isnan(x)}
    return {
        "status": run.status,
        "best": {**best, "epoch": selected.epoch} if val in best else None,
        "final": {} if math.isnan(tested.end) else {test: tested.end},
        "epochs": 0,
        "train_seconds": 0.0,
    }
