"""What a reader must know to judge the numbers of a comparison: a sentence each."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import shown
from ffn_bench.compare.results import result_of
from ffn_bench.compare.study import Competitor, Study, loss_of
from ffn_bench.compare.wording import count, listed, value
from ffn_bench.run_folder.recorded_run import RecordedRun
from ffn_bench.sweeps.leaderboard import leaderboard, score_of
from ffn_bench.tags import PRIMARY, Quantity, quantity, words

SHARING = ("batched", None)
"""Engines that train several runs at once; runs of earlier releases name none, and were trained so."""

STOPPED = {"failed": "stopped by an error"}
"""Statuses in words, where their names are not clear."""


def notes(study: Study) -> list[str]:
    """The notes of a study, the most important first."""
    lines = [*_parts(study), *_measured_once(study), *_runs(study), *_choice(study), *_monitored(study)]
    lines += _leaderboard(study)
    beside = [run for run in study.runs if run.co_trained_runs > 0]
    if any(run.engine in SHARING for run in beside):
        lines.append(
            "Runs were trained side by side: a run's seconds are its part of their common time, so they "
            "compare numbers of steps, not the cost of one optimizer's step."
        )
    elif beside:
        lines.append(
            "Runs were trained beside others, each on a core of its own: alone they take a little less time."
        )
    machines = {run.machine for run in study.runs}
    if len(machines) > 1:
        lines.append(
            f"Runs are from {len(machines)} machines or machine settings: seconds are not comparable."
        )
    return lines


def _where(study: Study, name: str, workload: str) -> str:
    return f"{name} on {workload}" if len(study.workloads) > 1 else name


def _parts(study: Study) -> list[str]:
    """About splits of the data that are missing."""
    measured = {tag for run in study.runs for tag in run.curves}
    if study.selecting not in measured:
        return ["No validation set: the metric is read at the end of training."]
    if study.metric == study.selecting and study.metric.replace("/val", "/test") not in measured:
        chosen = "settings and epochs were" if _chose(study) else "each run's epoch was"
        return [
            f"No test set: {words(study.metric)} is reported, on which {chosen} chosen, so it is optimistic."
        ]
    return []


def _measured_once(study: Study) -> list[str]:
    """About a score that was measured at the end only, as those of a whole split are."""
    curves = [run.curves[study.selecting] for run in study.runs if study.selecting in run.curves]
    if not quantity(study.selecting).of_split or any(len(curve.values) > 1 for curve in curves):
        return []
    name = words(study.selecting)
    what = f"{name[0].upper()}{name[1:]} was measured at the end of training only"
    return [f"{what}, so it chose no epoch; monitor={study.selecting} measures it at every epoch."]


def _chose(study: Study) -> bool:
    return any(len(cell.trials) > 1 for c in study.competitors for cell in c.cells.values())


def _runs(study: Study) -> list[str]:
    """About runs that failed, are missing, or repeat one another."""
    lines = []
    stopped = Counter(run.status for c in study.competitors for run in c.runs if run.failed and not run.ended)
    if stopped:
        total = sum(stopped.values())
        statuses = ", ".join(f"{n} {STOPPED.get(status, status)}" for status, n in stopped.items())
        they = "it counts as failed until it is" if total == 1 else "they count as failed until they are"
        unfinished = f"{count(total, 'run')} did not finish ({statuses})"
        lines.append(f"{unfinished}: {they} resumed and finished.")
    if study.running:
        runs_are = "run is" if study.running == 1 else "runs are"
        lines.append(f"{study.running} {runs_are} still training: nothing is claimed before all have ended.")
    missing = [
        _where(study, c.name, w)
        for c in study.competitors
        for w in study.workloads
        if w not in c.cells or not c.cells[w].runs
    ]
    if missing:
        last = "ranked last, and " * bool(study.complete)
        of = ", with the numbers of its other workloads" if len(study.workloads) > 1 else ""
        lines.append(f"No result of {', '.join(missing)}: {last}in no pair{of}.")
    cells = [cell for c in study.competitors for cell in c.cells.values() if cell.runs]
    differ = [
        word
        for word, k in (("seeds", 0), ("splits", 1))
        if len({frozenset(seed[k] for seed in cell.runs) for cell in cells}) > 1
    ]
    if differ or len({frozenset(cell.runs) for cell in cells}) > 1:
        what = " and ".join(differ or ["seeds", "splits"])
        lines.append(
            f"{what.capitalize()} are not the same everywhere: a pair is compared on the {what} that both "
            "have."
        )
    for c in study.competitors:
        for workload, cell in c.cells.items():
            where = _where(study, c.name, workload)
            if cell.twice:
                duplicates = f"{cell.twice} runs have" if cell.twice > 1 else "a run has"
                lines.append(
                    f"{where}: {duplicates} the seed of another run; of these the worst that ended counts."
                )
            lost = sum(math.isnan(result.best) for result in cell.results.values())
            if lost:
                runs = f"{lost} runs have" if lost > 1 else "a run has"
                verb = "are" if lost > 1 else "is"
                metric = words(study.metric)
                lines.append(f"{where}: {runs} no {metric} at the chosen epoch, and {verb} not in the pairs.")
        if c.repeated:
            duplicates = f"{c.repeated} seeds repeat" if c.repeated > 1 else "a seed repeats"
            own = "have no votes of their own" if c.repeated > 1 else "has no vote of its own"
            lines.append(f"{c.name}: {duplicates} the run of another seed bit for bit, and {own}.")
    return lines


def _choice(study: Study) -> list[str]:
    """About how settings were chosen."""
    lines = []
    cells = [(c.name, w, cell) for c in study.competitors for w, cell in c.cells.items()]
    if any(cell.choices > 1 for _, _, cell in cells):
        chosen = "Settings were chosen (on validation) by the seeds that are reported, which favours"
        if study.pairs:
            lines.append(
                f"{chosen} the competitor with more settings: p-values are multiplied by the numbers of "
                "settings of both sides. +tune=… uses new seeds and needs no such correction."
            )
        else:
            lines.append(f"{chosen} them: intervals are wider. +tune=… uses new seeds.")
    for name, workload, cell in cells:
        where = _where(study, name, workload)
        if cell.incomplete:
            these = "1 setting has" if cell.incomplete == 1 else f"{cell.incomplete} settings have"
            lines.append(f"{where}: {these} fewer seeds than others, and could not be chosen.")
        lines += [f"{where}: {edge}; the best may lie beyond." for edge in cell.edges]
    worse = [
        f"{c.name} on all {c.against_default.lost} seeds"
        for c in study.competitors
        if c.against_default
        and c.against_default.won == 0
        and c.against_default.lost == c.against_default.seeds >= statistics.fewest(2)
    ]
    if worse:
        lines.append(
            f"Tuned worse than default settings: {listed(worse)}. No claim is made of it: among many equals "
            "this happens by chance; but with one tuning seed, or a small validation set, the choice of the "
            "setting is also due to chance. More seeds help: hydra.sweeper.tuning_seeds=[0,100,200]."
        )
    return lines


def _monitored(study: Study) -> list[str]:
    """Where runs followed another tag than the one that chooses here."""
    named = {run.config.get("monitor") for run in study.runs} - {None, study.selecting}
    if not named:
        return []
    followed = listed(sorted(words(str(tag)) for tag in named))
    what = "Epochs and settings are" if _chose(study) else "Each run's epoch is"
    return [
        f"{what} chosen by {words(study.selecting)} here. The runs followed {followed} (monitor), as did "
        "their tuning, their leaderboard and their best weights."
    ]


def _leaderboard(study: Study) -> list[str]:
    """Where the leaderboard of these runs shows another one first, by its own rule and numbers."""
    if study.complete < 2 or study.running:
        return []
    runs = [run for run in study.runs if run.config.get("stage") != "tune"] or study.runs
    primary = PRIMARY[runs[0].task]
    of_runs = [_summary(run, primary) for run in runs]
    same_loss = len(set(map(loss_of, runs))) == 1
    rows, _, _ = leaderboard([_shown(study, run) for run in runs], of_runs, runs[0].task, same_loss)
    tag = rows[0]["tag"]
    leader = study.competitors[0]

    def is_leader(row: dict[str, Any]) -> bool:
        settings = row["settings"]
        return settings["competitor"] == leader.name and not settings.get("stage") and _is_chosen(leader, row)

    def score(row: dict[str, Any]) -> str:
        return value(tag if math.isfinite(row["score"][0]) else primary.name, score_of(row))

    top, own = rows[0], next((row for row in rows if is_leader(row)), None)
    if own is None or not math.isfinite(score_of(top)):
        return []
    what = words(tag) if math.isfinite(top["score"][0]) else primary.words("test")
    level = [row for row in rows if not row["bad"] and not top["bad"] and score(row) == score(top)]
    if own in level:
        names = list(dict.fromkeys([_label(study, own), *(_label(study, row) for row in level)]))
        if all(map(is_leader, level)):
            return []
        alike = listed(names[:4] if len(names) < 5 else [*names[:4], f"{len(names) - 4} more"])
        return [
            f"A leaderboard shows {alike} with the same mean {what}, as printed "
            f"({score(top)}): their order there means nothing."
        ]
    if own is top:
        return []
    bad = f", {own['bad']} of {own['runs']}" if own["bad"] else ""
    first = _label(study, top)
    behind = ", settings with a run that did not finish behind all others" if own["bad"] else ""
    return [
        f"A leaderboard shows {first} first: it ranks by mean {what} of the runs that finished"
        f"{behind} ({first} {score(top)}; {_label(study, own)} {score(own)}{bad}). This report ranks by "
        f"seeds won on {words(study.metric)}."
    ]


def _shown(study: Study, run: RecordedRun) -> dict[str, str]:
    """What distinguishes a run's row of the leaderboard from others."""
    return {
        "competitor": study.axes.competitor(run),
        "setting": _setting(study.axes.setting(run)),
        "workload": study.axes.workload(run),
        "split": str(run.config.get("data.split_seed")),
        "stage": "with default settings" if run.config.get("stage") == "default" else "",
        "seed": str(run.config.get("seed")),
    }


def _setting(setting: tuple[tuple[str, Any], ...]) -> str:
    return ", ".join(f"{key} {shown(x)}" for key, x in setting)


def _label(study: Study, row: dict[str, Any]) -> str:
    """A row's name, as far as needed to distinguish it; its setting where the report chose another."""
    settings = row["settings"]
    one = next(c for c in study.competitors if c.name == settings["competitor"])
    stage = f" {settings['stage']}" if settings.get("stage") else ""
    setting = "" if stage or _is_chosen(one, row) else f" with {settings['setting']}"
    workload = f" on {settings['workload']}" if "workload" in settings else ""
    split = f" on split {settings['split']}" if "split" in settings else ""
    return f"{settings['competitor']}{stage}{setting}{workload}{split}"


def _is_chosen(competitor: Competitor, row: dict[str, Any]) -> bool:
    """Whether a row is of a setting that the report chose for it."""
    chosen = {_setting(cell.setting) for cell in competitor.cells.values()}
    return "setting" not in row["settings"] or row["settings"]["setting"] in chosen


def _summary(run: RecordedRun, primary: Quantity) -> dict[str, Any]:
    """What the leaderboard takes from a run's summary: it ranks by what the run monitored, whatever is
    compared."""
    val, test = primary.tag("val"), primary.tag("test")
    tag = str(run.config.get("monitor") or val)
    tag = tag if tag in run.curves else val
    selected, tested = result_of(run, tag, tag), result_of(run, test, tag)
    best = {t: result_of(run, t, tag).best for t in dict.fromkeys((tag, val, test))}
    best = {t: x for t, x in best.items() if not math.isnan(x)}
    return {
        "status": run.status,
        "monitor": tag,
        "best": {**best, "epoch": selected.epoch} if tag in best else None,
        "final": {} if math.isnan(tested.end) else {test: tested.end},
        "epochs": 0,
        "train_seconds": 0.0,
    }
