"""What a comparison claims, and what it says where it claims nothing: the sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffn_bench.compare import statistics
from ffn_bench.compare.pairs import Pair, statements
from ffn_bench.compare.statistics import Interval
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.compare.wording import (
    all_of,
    apart,
    between,
    candidate_of,
    count,
    listed,
    probability,
    settings_of,
    values,
)
from ffn_bench.tags import quantity, words

MAX_IN_FULL = 4
"""Competitors at most that a sentence describes in full."""


def sentences(study: Study) -> list[str]:
    """The answer, in at most a handful of sentences, claims first. Whatever is claimed says "is ahead of"."""
    ranked = study.competitors[: study.complete]
    if not any(c.n for c in study.competitors):
        return ["No run has a result yet."]
    if not ranked:
        workloads = all_of(len(study.workloads), "workload")
        return [f"No competitor has results on {workloads}, so none can be compared over them."]
    if len(ranked) == 1:
        return _single(study, ranked[0])
    leader = study.leader
    others = [c for c in ranked if c is not leader]
    if study.running:
        still = f"{count(study.running, 'run')} still training"
        return [f"No order is claimed: {still}.", _standing(study, leader, others[0])]
    with_leader = [p for c in others if (p := study.pair(leader.name, c.name))]
    claims = [p for p in with_leader if p.ahead]
    other = [p for p in study.pairs if p.ahead and leader.name not in (p.first, p.second)]
    if not claims and not other:
        return [*_no_claim(study, leader, others[0]), *_reservations(study, leader)]
    won = [p for p in claims if p.ahead == leader.name]
    lines = [f"{_ahead(study, p)}." for p in won[:MAX_IN_FULL]]
    if won[MAX_IN_FULL:]:
        lines += _plain_and_not(study, won[MAX_IN_FULL:], leader.name)
    lines += [f"{'But ' * bool(won)}{_ahead(study, p)}." for p in claims if p.ahead != leader.name]
    lines += _against_defaults(study, leader, claims)
    among = []
    if other:
        few = [_in_short(study, p.seen_from(p.ahead)) for p in other[:3] if p.ahead]
        left = len(other) - 3
        rest = f"; {left} more such pair{' is' if left == 1 else 's are'} in the table of pairs" * (left > 0)
        among = [f"{'Among the others, ' * bool(lines)}{'; '.join(few)}{rest}."]
    level = _level(study, leader, others[0], [p for p in with_leader if not p.ahead], bool(won))
    lines += [*level, *among] if lines else [*among, *level]
    lines.append(
        f"All this is of {_scope(study)}, and of single seeds: it says who wins more often, not by how much."
    )
    if study.candidate:
        nor = "" if study.complete == 2 else ", nor on the others among themselves"
        lines.append(f"{leader.name} {candidate_of(study)}: no statement is made on who is ahead of it{nor}.")
    return lines + _reservations(study, leader)


def _level(study: Study, leader: Competitor, other: Competitor, pairs: list[Pair], won: bool) -> list[str]:
    """Those that the leader is not shown to be ahead of, or to differ from."""
    if not pairs:
        return []
    votes = [f"{p.second}: {_votes(study, p)}" for p in pairs[:3]]
    joined = "; of " if study.candidate else "; from "
    names = [p.second for p in pairs[3:11]]
    remaining = [f"{len(pairs) - 11} more"] if len(pairs) > 11 else []
    rest = f"; nor {joined[2:]}{listed([*names, *remaining])}" if names else ""
    first = not won and not study.candidate and leader.proportion > other.proportion
    which = ", which won the largest share of seeds," * first
    return [f"{leader.name}{which} {_not_shown(study)} {joined.join(votes)}{rest}."]


def _not_shown(study: Study) -> str:
    return "is not shown to be ahead of" if study.candidate else "is not shown to differ from"


def _single(study: Study, only: Competitor) -> list[str]:
    """The result of a single competitor."""
    metric = words(study.metric)
    if math.isinf(only.test.estimate):
        of = f" of {only.name}" if study.axes.compared else ""
        which = (
            f"All of the {only.n} runs{of}" if _failed(only) == only.n else "Half or more of the runs" + of
        )
        which = f"The one run{of}" if only.n == 1 else which
        sentence = f"{which} failed, so that there is no median {metric}{_setting(only)}."
        return [sentence, *_reservations(study, only)]
    median_of = "" if only.n == 1 else f", the median of {only.n} runs"
    if len(only.cells) > 1:
        median_of = f", the mean of the medians of {len(only.cells)} workloads"
    who = (
        f"{only.name} reaches"
        if study.axes.compared
        else f"The run{' reaches' if only.n == 1 else 's reach'}"
    )
    sentence = f"{who} {between(study.metric, only.test)} {metric}{median_of}{_setting(only)}."
    return [sentence, *_reservations(study, only)]


def _against_defaults(study: Study, leader: Competitor, claims: Sequence[Pair]) -> list[str]:
    """Of those that the leader is ahead of: which may be better with default settings, so that tuning hurt.

    Counts, without a test: the leader was chosen by these very seeds."""
    pairs = [p for q in claims if q.ahead == leader.name and (p := study.against_defaults.get(q.second))]
    counts = [f"{_counts(p)} against {p.second}" for p in pairs if not p.proportion.low > 0.5]
    if not counts:
        return []
    left = len(counts) - MAX_IN_FULL
    few = [*counts[:MAX_IN_FULL], *([f"{left} more like this"] if left > 0 else [])]
    against = "No claim is made against others with default settings, without tuning"
    return [f"{against}: {leader.name} has {'; '.join(few)}."]


def _setting(leader: Competitor) -> str:
    return f" with {settings_of(leader)}" if settings_of(leader) else ""


def _needed(study: Study, choices: float) -> int:
    """Deciding seeds below which nothing can be shown about a pair, if these seeds chose its settings."""
    return statistics.fewest(choices * statements(study.complete, study.candidate))


def _next(study: Study, leader: Competitor) -> str:
    """What the best of the others is in the ranking."""
    return "the next" if leader is study.competitors[0] else "which stands first"


def _standing(study: Study, leader: Competitor, other: Competitor) -> str:
    """Who stands first, and how: no claim."""
    pair = study.pair(leader.name, other.name)
    if pair is None or not pair.seeds:
        return f"{leader.name} and {other.name} have no seed in common{_everywhere(study)}."
    first = candidate_of(study) if study.candidate else "stands first"
    return f"{leader.name} {first}; against {other.name}, {_next(study, leader)}, {_votes(study, pair)}."


def _everywhere(study: Study) -> str:
    """What a seed must have been run on, where that is more than one thing."""
    if len(study.workloads) > 1:
        return " on every workload"
    splits = {split for c in study.competitors for cell in c.cells.values() for _, split in cell.runs}
    return " on every split" if len(splits) > 1 else ""


def _scope(study: Study) -> str:
    """The workloads and splits that the claims are of."""
    seen = {frozenset(split for _, split in p.blocks) for p in study.pairs if p.ahead}
    splits = "the splits that both of a pair were run on"
    if len(seen) == 1:
        number = len(next(iter(seen)))
        splits = "this split" if number == 1 else f"these {number} splits"
    if len(study.workloads) == 1:
        return splits
    return f"these {len(study.workloads)} workloads" + (f" on {splits}" if splits != "this split" else "")


def _counts(pair: Pair) -> str:
    """`6 won, 3 lost, 1 tied`."""
    return f"{pair.won} won, {pair.lost} lost" + (f", {pair.tied} tied" if pair.tied else "")


def _votes(study: Study, pair: Pair) -> str:
    """`6 won, 3 lost (share of the decided 30–93 %)`, and p where the pair alone would be a finding."""
    if not pair.seeds:
        return "no seed in common"
    if not pair.decided:
        return _counts(pair)
    won = pair.proportion
    p = pair.adjusted[0] if won.low > 0.5 else pair.adjusted[1] if won.high < 0.5 else math.nan
    doubt = f" by itself; {_p(study, p)}" if p > statistics.SIGNIFICANT else ""
    return f"{_counts(pair)} (share of the decided {_per_cent(won)}{doubt})"


def _per_cent(interval: Interval) -> str:
    """An interval of a proportion, rounded outward, with enough digits to stay on its side of ½, 0 and 1."""

    def one(x: float, outward: float) -> str:
        for digits in range(4):
            scale = 10.0**digits
            text = f"{math.floor(-outward * 100 * x * scale) / (-outward * scale):.{digits}f}"
            same = all((float(text) > at) == (100 * x > at) and (float(text) < at) == (100 * x < at)
                       for at in (0, 50, 100))  # fmt: skip
            if same:
                break
        return text

    return f"{one(interval.low, -1.0)}–{one(interval.high, 1.0)} %"


def _won_of(won: int, seeds: int) -> str:
    """`8 of 10 seeds`, `both seeds`, `the one seed`."""
    if won == seeds <= 2:
        return "both seeds" if seeds == 2 else "the one seed"
    return f"{won} of {count(seeds, 'seed')}"


def _on(study: Study, pair: Pair) -> str:
    """`10 of 10 seeds (share 69–100 %)`. A claim for a candidate is one-sided and shows that end only."""
    if not pair.decided:
        return f"no order on {all_of(pair.seeds, 'seed')}: all tied"
    interval = _per_cent(pair.proportion)
    if not pair.ahead and not pair.proportion.low <= 0.5 <= pair.proportion.high:
        interval += " by itself"
    if _one_sided(study, pair):
        low = statistics.proportion(pair.won, pair.decided, pair.choices / 2).low
        interval = f"at least {_per_cent(Interval(0.5, low, 1.0)).partition('–')[0]} %"
    if not pair.tied:
        return f"{_won_of(pair.won, pair.decided)} (share {interval})"
    decide = "that decides" if pair.decided == 1 else "that decide"
    every = all_of(pair.decided, "seed")
    won = every if pair.won == pair.decided else f"{pair.won} of the {every.split(' ', 1)[1]}"
    return f"{won} {decide} (share {interval}; {pair.tied} tied)"


def _one_sided(study: Study, pair: Pair) -> bool:
    return study.candidate is not None and pair.ahead is not None


def _size(study: Study, pair: Pair) -> str:
    """`, typically by +0.74 points [+0.37, +1.11]`, or from which to which; nothing where failures leave no
    size."""
    difference = pair.difference
    if not math.isfinite(difference.estimate):
        return ""
    over = f", means over the {_summed(study)}" if pair.sums_up else ""
    if _one_sided(study, pair):
        difference = Interval(difference.estimate)
    if pair.decided == 1:
        return f", {_by(study, difference)}{over}"
    if difference.known or _one_sided(study, pair):
        return f", typically {_by(study, difference)}{over}"
    if not all(map(math.isfinite, pair.span)):
        return f", typically {_by(study, difference)}, failed runs among them{over}"
    low, high = (_by(study, Interval(end)) for end in pair.span)
    if low == high:
        return f", each {low}{over}"
    return f", {low.removesuffix(' points')} to {high.removeprefix('lower ').removeprefix('by ')}{over}"


def _by(study: Study, difference: Interval) -> str:
    """`by +0.74 points`; of losses `lower by 0.049`, since less is better."""
    text = apart(study.metric, difference)
    return f"by {text}" if study.higher else f"lower by {text.replace('+', '')}"


def _summed(study: Study) -> str:
    return "workloads" if len(study.workloads) > 1 else "splits"


def _ahead(study: Study, pair: Pair) -> str:
    """A claim with everything that must be said with it."""
    assert pair.ahead is not None
    claim = pair.seen_from(pair.ahead)
    but = reservation(study, claim)
    most = " on most seeds" if but else ""
    better = f"better on {_on(study, claim)}{_size(study, claim)}"
    return f"{claim.first} is ahead of {claim.second}{most}: {better}; {_p(study, claim.adjusted[0])}{but}"


def reservation(study: Study, pair: Pair) -> str:
    """What speaks against the first of a pair that is ahead: more failures (also on seeds that the other was
    not run on), a worse mean, differences that point the other way; empty where nothing does."""
    reasons = []
    first, second = (next(c for c in study.competitors if c.name == n) for n in (pair.first, pair.second))
    failed, of = _failed(first), _failed(second)
    if pair.failed[0] > pair.failed[1]:
        reasons.append(
            f"{pair.failed[0]} of its {pair.runs} runs failed ({pair.second}: {pair.failed[1] or 'none'})"
        )
    elif failed * second.n > of * first.n:
        reasons.append(
            f"{failed} of all its {first.n} runs failed ({pair.second}: {of or 'none'} of {second.n})"
        )
    worse = (pair.means[1] - pair.means[0]) * quantity(study.metric).sign
    alike = math.isclose(*pair.means, rel_tol=1e-9)  # equal but for the order of a sum
    if math.isnan(worse) or (worse > 0 and not alike):
        means = values(study.metric, *pair.means)
        at = ", failed runs at chance" if any(pair.failed) else ""
        which = "not known to be the better one" if math.isnan(worse) else "the worse one"
        reasons.append(f"its mean is {which} ({means[0]} against {means[1]}{at})")
    if pair.difference.estimate < 0:
        over = f" of the means over the {_summed(study)}" if pair.sums_up else ""
        reasons.append(f"the typical difference{over} points the other way")
    return f", but {', and '.join(reasons)}" if reasons else ""


def _failed(competitor: Competitor) -> int:
    """Of its reported runs."""
    return sum(run.failed for run in competitor.runs)


def _short(pair: Pair) -> str:
    """`(11 of 11 seeds; 9 tied)`."""
    return f"({pair.won} of {count(pair.decided, 'seed')}{f'; {pair.tied} tied' * bool(pair.tied)})"


def _in_short(study: Study, pair: Pair) -> str:
    """A claim among the others."""
    but = reservation(study, pair)
    most = " on most seeds" if but else ""
    return f"{pair.first} is ahead of {pair.second}{most} {_short(pair)}{but}"


def _plain_and_not(study: Study, pairs: Sequence[Pair], leader: str) -> list[str]:
    """Further claims of the leader in short, those with a reservation in full."""
    plain = [p for p in pairs if not reservation(study, p)]
    sentences = [f"{_ahead(study, p)}." for p in pairs if reservation(study, p)]
    if plain:
        names = [f"{p.second} {_short(p)}" for p in plain]
        sentences.insert(0, f"{leader} is ahead of {listed(names)}, too.")
    return sentences


def _p(study: Study, p: float) -> str:
    """`p = 0.031 over all 20 statements`."""
    text = probability(p)
    equals = text if text.startswith("<") else f"= {text}"
    return f"p {equals} over {all_of(statements(study.complete, study.candidate), 'statement')}"


def _no_claim(study: Study, leader: Competitor, other: Competitor) -> list[str]:
    """What can be said where no order is shown."""
    k = study.complete
    pair = study.pair(leader.name, other.name)
    if pair is None or not pair.seeds:
        what = f"have no seed in common{_everywhere(study)}"
        return [f"{leader.name} and {other.name} {what}: no order is claimed."]
    chosen = _setting(leader)
    needed = _needed(study, min(p.choices for p in study.pairs))
    most = max(p.seeds for p in study.pairs)
    since = "" if pair.choices == 1 else f", since these seeds chose the settings ({pair.choices:,.0f} ways)"
    if study.candidate:
        what = f"show {leader.name} ahead of {'any of the others' if k > 2 else other.name}"
    else:
        what = f"order {k if k > 2 else 'two'} competitors"
    if most == 1:
        return [
            f"{_one_seed(study, leader, pair)}{chosen}.",
            f"One seed orders nothing; to {what} at least {needed} are needed{since}.",
        ]
    against = f"against {pair.second}, {_next(study, leader)}, {_on(study, pair)}{_size(study, pair)}"
    if pair.failed == (pair.runs, pair.runs):
        finding = f"All runs of both {leader.name} and {pair.second} failed{chosen}."
    elif not pair.decided:
        finding = f"{leader.name} and {pair.second} tie on {all_of(pair.seeds, 'seed')}{chosen}."
    elif study.candidate:
        finding = f"{leader.name} {candidate_of(study)}{chosen}: {against}."
    elif leader.proportion > other.proportion:
        largest = "the larger share" if k == 2 else "the largest share"
        finding = f"{leader.name} won {largest} of seeds{chosen}: {against}."
    else:
        finding = f"{leader.name} and {other.name} won the same share of seeds{chosen}: {against}."
    least = _needed(study, pair.choices)
    both = f"{leader.name} and {pair.second}"
    if most < needed:
        why = f"{count(most, 'seed')} cannot {what}; at least {needed} are needed{since}"
    elif pair.decided >= least:
        better = [p for p in pair.adjusted if not math.isnan(p)]
        why = f"{leader.name} {_not_shown(study)} {pair.second} ({_p(study, min(better))})"
    elif pair.decided == pair.seeds:
        seeds = count(pair.seeds, "seed")
        why = f"{both} have {seeds} in common, and at least {least} must tell them apart{since}"
    else:
        few = f"only {pair.decided}" if pair.decided else "none"
        tell = "tell" if pair.decided > 1 else "tells"
        why = f"{few} of {count(pair.seeds, 'seed')} {tell} {both} apart; at least {least} must{since}"
    return [finding, f"No order is claimed: {why}."]


def _one_seed(study: Study, leader: Competitor, pair: Pair) -> str:
    """What one seed shows."""
    first, second = pair.first, f"{pair.second}, {_next(study, leader)}"
    if pair.failed == (pair.runs, pair.runs):
        return f"On the one seed that both have, all runs of {first} and of {pair.second} failed"
    if pair.sums_up:
        of = f"{pair.runs} {_summed(study)}"
        means = ""
        if len(study.workloads) == 1:
            own, other = values(study.metric, *pair.means)
            at = ", failed runs at chance" if any(pair.failed) else ""
            means = f" (means {own} against {other}{at})"
        won, lost = pair.runs_won
        result = f"won {won} of {of}" + (f" and lost {lost}" if lost else "")
        return f"On the one seed that both have, {first} {result} against {second}{means}"
    shown = values(study.metric, *pair.means)
    own, other = ("failed" if lost else x for lost, x in zip(pair.failed, shown, strict=True))
    if not pair.decided:
        return f"On the one seed that both have, {first} and {pair.second} tie ({own})"
    word = "higher" if study.higher == bool(pair.won) else "lower"
    scored = (
        f"scored {word} than" if not any(pair.failed) else f"did {'better' if pair.won else 'worse'} than"
    )
    return f"On the one seed that both have, {first} {scored} {second} ({own} against {other})"


def _reservations(study: Study, leader: Competitor) -> list[str]:
    """What must be said in any case: all failures, and the leader's setting and what tuning did to it."""
    sentences = []
    named = bool(study.axes.compared)
    ranked = [leader, *(c for c in study.competitors[: study.complete] if c is not leader)]
    failed = [c for c in ranked if _failed(c)]
    if failed and leader not in failed:
        most = math.ceil(100 * statistics.proportion(0, leader.n).high)
        none = f"None of the {leader.n} runs of {leader.name} failed"
        none = none if leader.n > 1 else f"The one run of {leader.name} did not fail"
        sentences.append(f"{none}; a rate up to {most} % is not excluded.")
    if failed and not named:
        sentences.append(f"{_failed(leader)} of {count(leader.n, 'run')} failed.")
    elif failed:
        counts = [f"{c.name} {_failed(c)} of {c.n}" for c in failed[:MAX_IN_FULL]]
        remaining = [f"{len(failed) - MAX_IN_FULL} more, in the table"] if len(failed) > MAX_IN_FULL else []
        sentences.append(f"Runs that failed: {listed([*counts, *remaining])}.")
    if any(cell.edges for cell in leader.cells.values()):
        of = f" of {leader.name}" if named else ""
        sentences.append(f"The setting{of} lies at the edge of what was tried.")
    tuned = leader.against_default
    if tuned is not None and tuned.seeds:
        who = f"{leader.name}, tuned" if named else "Tuned"
        middle = tuned.difference.estimate
        size = f", typically {_by(study, Interval(middle))}" if math.isfinite(middle) else ""
        sentences.append(f"{who} against default settings: {_counts(tuned)}{size}; no claim is made of it.")
    return sentences
