"""What a comparison claims, and what it says where it claims nothing: the sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffn_bench.compare import statistics
from ffn_bench.compare.pairs import Pair, statements
from ffn_bench.compare.statistics import Interval
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.compare.wording import apart, between, listed, probability, settings_of, value
from ffn_bench.tags import quantity, words


def sentences(study: Study) -> list[str]:
    """The answer, in at most a handful of sentences. Whatever is claimed says "is ahead of"."""
    ranked = study.competitors[: study.complete]
    if not any(c.n for c in study.competitors):
        return ["No run has a result yet."]
    if not ranked:
        many = len(study.workloads)
        return [f"Nobody has results on all {many} workloads, so that nobody can be compared over them."]
    if len(ranked) == 1:
        return _alone(study, ranked[0])
    leader = study.leader
    others = [c for c in ranked if c is not leader]
    if study.running:
        still = f"{study.running} run{'s' * (study.running > 1)}"
        return [f"No order is claimed: {still} still training.", _standing(study, leader, others[0])]
    with_leader = [p for c in others if (p := study.pair(leader.name, c.name))]
    claims = [p for p in with_leader if p.ahead]
    other = [p for p in study.pairs if p.ahead and leader.name not in (p.first, p.second)]
    if not claims and not other:
        return [*_no_claim(study, leader, others[0]), *_reservations(study, leader)]
    won = [p for p in claims if p.ahead == leader.name]
    found = [f"{_ahead(study, p)}." for p in won[:4]]
    if won[4:]:
        found += _plain_and_not(study, won[4:], leader.name)
    found += [f"But {_ahead(study, p)}." for p in claims if p.ahead != leader.name]
    found += _shipped(study, leader, claims)
    if not found:
        found.append(_standing(study, leader, others[0]))
    level = [p for p in with_leader if not p.ahead]
    if level:
        told = [f"{p.second}: {_votes(p)}" for p in level[:3]]
        joined = "; of " if study.candidate else "; from "
        names = [p.second for p in level[3:11]]
        more = [f"{len(level) - 11} more"] if len(level) > 11 else []
        rest = f"; nor {joined[2:]}{listed([*names, *more])}" if names else ""
        found.append(f"{leader.name} {_not_shown(study)} {joined.join(told)}{rest}.")
    if other:
        few = [_in_short(study, p.seen_from(p.ahead)) for p in other[:3] if p.ahead]
        rest = f"; {len(other) - 3} more such pairs are in the table of pairs" if len(other) > 3 else ""
        found.append(f"Among the others, {'; '.join(few)}{rest}.")
    on = "this split" if study.splits == 1 else f"these {study.splits} splits"
    if len(study.workloads) > 1:
        on = f"these {len(study.workloads)} workloads"
    found.append(f"All this is of {on}, and of single seeds: it says who wins more often, not by how much.")
    if study.candidate:
        found.append(
            f"{leader.name} was named beforehand: no statement is made on the others among themselves."
        )
    return found + _reservations(study, leader)


def _not_shown(study: Study) -> str:
    return "is not shown to be ahead of" if study.candidate else "is not shown to differ from"


def _alone(study: Study, only: Competitor) -> list[str]:
    """What one competitor comes to."""
    many = "" if only.n == 1 else f", the median of {only.n} runs"
    if len(only.cells) > 1:
        many = f", the mean of the medians of {len(only.cells)} workloads"
    reached = f"{between(study.metric, only.test)} {words(study.metric)}"
    who = f"{only.name} reaches" if study.axes.compared else "The runs reach"
    return [f"{who} {reached}{many}{_setting(only)}.", *_reservations(study, only)]


def _shipped(study: Study, leader: Competitor, claims: Sequence[Pair]) -> list[str]:
    """Of those that the leader is ahead of: who is not behind it as shipped, so that tuning spoilt it."""
    found = []
    spoilt = [p for q in claims if (p := study.shipped.get(q.second)) and p.ahead != leader.name]
    for p in spoilt:
        if p.ahead:
            turned = p.seen_from(p.second)
            found.append(
                f"But {p.second} as shipped, without tuning, is better than {leader.name} on {_on(turned)}."
            )
    told = [f"{p.second} ({_votes(p)})" for p in spoilt if not p.ahead]
    if told:
        found.append(
            f"{leader.name} is not shown to differ from {listed(told[:4])} as shipped, without tuning."
        )
    return found


def _setting(leader: Competitor) -> str:
    return f" with {settings_of(leader)}" if settings_of(leader) else ""


def _needed(study: Study, choices: float) -> int:
    """Deciding seeds below which nothing can be shown of a pair whose settings they chose in so many ways."""
    return statistics.fewest(choices * statements(study.complete, study.candidate))


def _standing(study: Study, leader: Competitor, other: Competitor) -> str:
    """Who stands first, and how: no claim."""
    pair = study.pair(leader.name, other.name)
    if pair is None or not pair.seeds:
        return f"{leader.name} and {other.name} have no seed in common on every workload."
    first = "was named beforehand" if study.candidate else "stands first"
    return f"{leader.name} {first}; against {other.name}, the next, {_votes(pair)}."


def _votes(pair: Pair) -> str:
    """`6 won, 3 lost (share of the decided 30–93 %)`, and p where the pair alone would be a finding."""
    if not pair.seeds:
        return "no seed in common"
    tied = f", {pair.tied} tied" if pair.tied else ""
    ends = f" (share of the decided {_per_cent(pair.share)}" if pair.decided else ""
    p = pair.adjusted[0] if pair.share.low > 0.5 else pair.adjusted[1] if pair.share.high < 0.5 else math.nan
    doubt = f" by itself; p {_equals(p)} over all statements" if p > statistics.SIGNIFICANT else ""
    return f"{pair.won} won, {pair.lost} lost{tied}{ends}{doubt}{')' if pair.decided else ''}"


def _per_cent(found: Interval) -> str:
    return f"{100 * found.low:.0f}–{100 * found.high:.0f} %"


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _on(pair: Pair) -> str:
    """`10 of 10 seeds (share 69–100 %)`."""
    if not pair.decided:
        return f"none of {_seeds(pair.seeds)}: all tied"
    if pair.tied:
        return (
            f"{pair.won} of the {pair.decided} that decide (share {_per_cent(pair.share)}; {pair.tied} tied)"
        )
    return f"{pair.won} of {_seeds(pair.decided)} (share {_per_cent(pair.share)})"


def _size(study: Study, pair: Pair) -> str:
    """How large the differences are: the median with its interval, or from which to which."""
    mean = "its mean over the workloads by " if len(study.workloads) > 1 else "by "
    if pair.difference.known:
        return f"typically {mean}{apart(study.metric, pair.difference)}"
    if pair.decided == 1:
        return f"difference {apart(study.metric, pair.difference)}"
    low, high = (apart(study.metric, Interval(end)).removesuffix(" points") for end in pair.span)
    return f"differences {low} to {high}{' points' * quantity(study.metric).is_percent}"


def _ahead(study: Study, pair: Pair) -> str:
    """A claim with all that must be said beside it."""
    assert pair.ahead is not None
    found = pair.seen_from(pair.ahead)
    p = f"p {_equals(found.adjusted[0])} over all {statements(study.complete, study.candidate)} statements"
    but = reservation(study, found)
    most = " on most seeds" if but else ""
    claim = (
        f"{found.first} is ahead of {found.second}{most}: better on {_on(found)}, {_size(study, found)}; {p}"
    )
    return claim + but


def reservation(study: Study, pair: Pair) -> str:
    """What speaks against the first of a pair that is ahead: more failures (also on seeds that the other was
    not run on), a worse mean, differences that point the other way; empty where nothing does."""
    parts = []
    ours, theirs = (next(c for c in study.competitors if c.name == n) for n in (pair.first, pair.second))
    failed, of = sum(run.failed for run in ours.runs), sum(run.failed for run in theirs.runs)
    if pair.failed[0] > pair.failed[1]:
        others = f"{pair.failed[1]} of {pair.second}'s" if pair.failed[1] else f"none of {pair.second}'s"
        parts.append(f"{pair.failed[0]} of its {pair.runs} runs failed, {others}")
    elif failed * theirs.n > of * ours.n:
        parts.append(
            f"of all its {ours.n} runs {failed} failed, of {pair.second}'s {theirs.n} {of or 'none'}"
        )
    sign = quantity(study.metric).sign
    if sign * pair.means[0] < sign * pair.means[1] or math.isnan(pair.means[0] - pair.means[1]):
        means = [value(study.metric, mean) for mean in pair.means]
        at = ", failed runs at chance" if any(pair.failed) else ""
        parts.append(f"its mean is the worse one ({means[0]} against {means[1]}{at})")
    if pair.difference.estimate < 0:
        parts.append("the typical difference of the means over workloads points the other way")
    return f", but {', and '.join(parts)}" if parts else ""


def _in_short(study: Study, pair: Pair) -> str:
    """A claim among the others."""
    but = reservation(study, pair)
    most = " on most seeds" if but else ""
    return f"{pair.first} is ahead of {pair.second}{most} ({pair.won} of {_seeds(pair.decided)}){but}"


def _plain_and_not(study: Study, pairs: Sequence[Pair], leader: str) -> list[str]:
    """Further claims of the leader in short, those with a reservation in full."""
    plain = [p for p in pairs if not reservation(study, p)]
    found = [f"{_ahead(study, p)}." for p in pairs if reservation(study, p)]
    if plain:
        told = [f"{p.second} ({p.won} of {_seeds(p.decided)})" for p in plain]
        found.insert(0, f"{leader} is ahead of {listed(told)}, too.")
    return found


def _equals(p: float) -> str:
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _no_claim(study: Study, leader: Competitor, other: Competitor) -> list[str]:
    """What can be said where nothing is shown."""
    k = study.complete
    pair = study.pair(leader.name, other.name)
    if pair is None or not pair.seeds:
        what = "have no seed in common on every workload"
        return [f"{leader.name} and {other.name} {what}: no order is claimed."]
    needed = _needed(study, min(p.choices for p in study.pairs))
    many = f"{k} competitors" if k > 2 else "two competitors"
    chosen = _setting(leader)
    most = max(p.seeds for p in study.pairs)
    if most == 1:
        return [
            _one_seed(study, pair if pair.won or not pair.lost else pair.seen_from(pair.second))
            + f"{chosen}.",
            f"One seed orders nothing; {many} need at least {needed}.",
        ]
    against = f"against {pair.second}, the next, {_on(pair)}, {_size(study, pair)}"
    if not pair.decided:
        found = f"{leader.name} and {pair.second} tie on all {_seeds(pair.seeds)}{chosen}."
    elif pair.seeds == 2 and pair.won == 2:
        found = (
            f"{leader.name} was better than {pair.second}, the next, on both seeds{chosen}; equals agree so "
            "in half of all comparisons."
        )
    elif study.candidate:
        found = f"{leader.name} was named beforehand{chosen}: {against}."
    elif leader.share > other.share:
        largest = "the larger share" if k == 2 else "the largest share"
        found = f"{leader.name} won {largest} of seeds{chosen}: {against}."
    else:
        found = f"{leader.name} and {other.name} won the same share of seeds{chosen}: {against}."
    if most < needed:
        few = f"{_seeds(most)} cannot order {many}; {needed} can"
        told = f"No order is claimed: {few}."
    else:
        told = f"No order is claimed: {leader.name} {_not_shown(study)} {pair.second}: {_votes(pair)}."
        least = _needed(study, pair.choices)
        if pair.decided < least:
            told = (
                f"No order is claimed: only {pair.decided} of {_seeds(pair.seeds)} tell {leader.name} and "
                f"{pair.second} apart; {least} must."
            )
            if pair.choices > 1:
                told = told[:-1] + f", since these seeds chose the settings ({pair.choices:,.0f} ways)."
    return [found, told]


def _one_seed(study: Study, pair: Pair) -> str:
    """What one seed shows."""
    if len(study.workloads) > 1:
        what = "did better on more workloads than" if pair.won else "is level with"
        return f"On the one seed {pair.first} {what} {pair.second}, the next"
    ours, theirs = (
        "failed" if failed else value(study.metric, mean)
        for failed, mean in zip(pair.failed, pair.means, strict=True)
    )
    if not pair.won:
        return f"On their one seed {pair.first} and {pair.second} are level ({ours})"
    better = "higher" if study.higher else "lower"
    return (
        f"On its one seed {pair.first} scored {better} than {pair.second}, the next ({ours} against {theirs})"
    )


def _reservations(study: Study, leader: Competitor) -> list[str]:
    """What of the leader must not go unsaid."""
    found = []
    name = leader.name if study.axes.compared else "the study"
    whose = f"{leader.name}'s" if study.axes.compared else "the"
    failed = sum(run.failed for run in leader.runs)
    if failed:
        found.append(f"{failed} of {whose} {leader.n} runs failed.")
    elif any(run.failed for c in study.competitors for run in c.runs):
        most = statistics.share(0, leader.n).high
        found.append(
            f"None of {whose} {leader.n} runs failed; a rate up to {100 * most:.0f} % is not excluded."
        )
    if any(cell.edges for cell in leader.cells.values()):
        setting = f"{whose} setting" if study.axes.compared else "The setting"
        found.append(f"{setting} lies at the edge of what was tried.")
    tuned = leader.against_default
    if tuned is not None and tuned.seeds:
        sure = min(tuned.p_values) * 2 <= statistics.SIGNIFICANT
        doubt = "" if sure else "; that may be chance"
        found.append(f"Tuned against as shipped, {name}: {_votes(tuned)}, {_size(study, tuned)}{doubt}.")
    return found
