"""How often is a report wrong? Simulates whole reports: run folders in, claims read back from what is
printed.

    python scripts/check_verdicts.py                         # all cells, 2,000 reports each
    python scripts/check_verdicts.py --only k=2 --reports 200

A cell is a kind of study: how many competitors and seeds, how scores are distributed, how runs of one seed
hang together, how many workloads, settings and failures. Scores are drawn, written as run folders, and read,
compared and worded by the code that ships. Claims come from the sentences and from comparison.json, which
must agree.

Where default settings were run, anything said about them counts as a claim unless it says that it is none.

A cell fails where claims among equals are shown to be more than 5 % of reports (the lower end of the exact
95 % interval), claims against the truth more than 2.5 %, where an interval called 95 % covers less than 93
%, or where one claim hides that the mean says the opposite. Exits with 1 if one does.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from scipy import special, stats

from ffn_bench.command_line.composition import guarded
from ffn_bench.compare import axes, notes, numbers, read, study
from ffn_bench.compare.statistics import Array
from ffn_bench.configuration import parsing, schema
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.run_folder import files, finding
from ffn_bench.run_folder.identity import FORMAT, PROTOCOL

NAMES = "ABCDEFGHIJKL"
SD = 0.02
"""Of one run's accuracy."""
CHANCE = 0.1
METRIC = "accuracy/test"


@dataclass(frozen=True)
class Cell:
    """A kind of study. The base is that of the project: five competitors, ten seeds, 270 test rows."""

    name: str
    k: int = 5
    n: int = 10
    noise: str = "grid"
    """normal, lognormal, bounded, or grid."""
    rows: int = 270
    """Of the test part, where accuracies lie on a grid."""
    correlation: float = 0.5
    """Of two competitors' runs of one seed."""
    failing: tuple[float, ...] = (0.0,)
    """Share of runs that diverge: of all competitors, or one each."""
    workloads: int = 1
    dominating: bool = False
    """Whether the first workload has thirty times the spread of the others."""
    settings: int = 1
    """That the first competitor tries; the others try one."""
    new_seeds: bool = False
    """Whether settings are chosen by seeds of their own."""
    unequal: bool = False
    """Whether competitors have from six seeds to n."""
    splits: bool = False
    """Whether the workloads are splits of one: runs of a competitor at a seed share half their noise."""
    candidate: bool = False
    """Whether the first competitor was named beforehand."""
    with_defaults: bool = False
    """Whether each was also run with default settings, which are as good as the tuned ones."""
    shift: tuple[float, ...] = ()
    """By how many standard deviations the first competitors are better than the rest."""

    @property
    def equal(self) -> bool:
        """Whether all competitors are the same."""
        return not any(self.shift) and len(set(self.failing)) == 1


def cells() -> Iterator[Cell]:
    """One factor at a time around the base, then corners, then unequal competitors."""
    yield Cell("base")
    for k in (2, 12):
        yield Cell(f"k={k}", k=k)
    for n in (3, 5, 20, 30):
        yield Cell(f"n={n}", n=n)
    for noise in ("normal", "lognormal", "bounded"):
        yield Cell(noise, noise=noise)
    for rows in (22, 45, 150):
        yield Cell(f"{rows} rows", rows=rows)
    yield Cell("10 % fail", failing=(0.1,))
    for correlation in (0.0, 0.9):
        yield Cell(f"correlation {correlation:g}", correlation=correlation)
    for w in (4, 10):
        yield Cell(f"{w} workloads", workloads=w)
        yield Cell(f"{w} workloads, one dominating", workloads=w, dominating=True)
    yield Cell("36 settings against 1, same seeds", k=2, settings=36)
    yield Cell("36 settings against 1, new seeds", k=2, settings=36, new_seeds=True)
    yield Cell("unequal seeds", unequal=True)
    yield Cell("10 seeds on 3 splits", workloads=3, splits=True)
    yield Cell("a candidate", candidate=True)
    for k, n in ((12, 6), (12, 7), (5, 6), (2, 6)):  # a cell's name seeds its draws, so it stays
        yield Cell(f"k={k}, n={n}, tuned and as shipped", k=k, n=n, new_seeds=True, with_defaults=True)

    for k, n in ((2, 6), (2, 30), (12, 12), (12, 20), (5, 9)):
        yield Cell(f"k={k}, n={n}", k=k, n=n)
    for noise in ("normal", "lognormal", "bounded"):
        yield Cell(f"k=2, n=20, {noise}", k=2, n=20, noise=noise)
        yield Cell(f"k=12, n=12, {noise}", k=12, n=12, noise=noise)
    for rows in (22, 45, 150):
        yield Cell(f"k=12, n=20, {rows} rows", k=12, n=20, rows=rows)
        yield Cell(f"k=2, n=3, {rows} rows", k=2, n=3, rows=rows)
    for correlation in (0.0, 0.9):
        yield Cell(f"k=2, n=20, 10 % fail, correlation {correlation:g}", k=2, n=20, failing=(0.1,),
                   correlation=correlation)  # fmt: skip
        yield Cell(f"k=12, n=12, 10 % fail, correlation {correlation:g}", k=12, n=12, failing=(0.1,),
                   correlation=correlation)  # fmt: skip
    yield Cell("k=2, 10 workloads", k=2, workloads=10)
    yield Cell("k=2, n=20, 4 workloads, one dominating", k=2, n=20, workloads=4, dominating=True)
    yield Cell("4 workloads, 10 % fail", workloads=4, failing=(0.1,))
    yield Cell("k=2, n=20, lognormal, 30 % fail", k=2, n=20, noise="lognormal", failing=(0.3,))
    yield Cell("k=2, n=20, 12 settings against 1, same seeds", k=2, n=20, settings=12)
    yield Cell("k=5, n=20, unequal seeds, 10 % fail", n=20, unequal=True, failing=(0.1,))
    yield Cell("k=12, n=20, unequal seeds", k=12, n=20, unequal=True)
    yield Cell("k=2, 6 seeds on 5 splits", k=2, n=6, workloads=5, splits=True)
    yield Cell("k=12, n=12, a candidate", k=12, n=12, candidate=True)

    for n in (5, 10, 20):
        yield Cell(f"1 SD better, n={n}", n=n, shift=(1.0,))
        yield Cell(f"1 SD better, k=2, n={n}", k=2, n=n, shift=(1.0,))
    yield Cell("1 SD better, k=12, n=20", k=12, n=20, shift=(1.0,))
    yield Cell("1 SD better, a candidate, n=10", candidate=True, shift=(1.0,))
    for n in (10, 20):
        yield Cell(f"better but 10 % fail, k=2, n={n}", k=2, n=n, shift=(1.5,), failing=(0.1, 0.0))
        yield Cell(f"a little better but 30 % fail, k=2, n={n}", k=2, n=n, shift=(0.3,), failing=(0.3, 0.0))
    yield Cell("a staircase of 0.3 SD, n=20", n=20, shift=(1.2, 0.9, 0.6, 0.3))
    yield Cell("a staircase, lognormal, 10 % fail, n=20", n=20, noise="lognormal", failing=(0.1,),
               shift=(1.2, 0.9, 0.6, 0.3))  # fmt: skip


# --- scores ---------------------------------------------------------------------------------------------


def draw(cell: Cell, rng: np.random.Generator, n: int, settings: int = 1) -> Array:
    """Accuracies `[k, settings, workloads, n]`; −∞ is a run that failed."""
    shape = (cell.k, settings, cell.workloads, n)
    z = math.sqrt(cell.correlation) * rng.normal(size=(1, 1, cell.workloads, n))
    own = rng.normal(size=shape)
    if cell.splits:
        own = math.sqrt(0.5) * own + math.sqrt(0.5) * rng.normal(size=(cell.k, settings, 1, n))
    z = z + math.sqrt(1 - cell.correlation) * own
    shift = np.zeros(cell.k)
    shift[: len(cell.shift)] = cell.shift
    scale = np.full(cell.workloads, SD)
    if cell.dominating:
        scale, scale[0] = np.full(cell.workloads, SD / 10), 3 * SD
    at = shift[:, None, None, None]
    wide = scale[:, None]
    if cell.noise == "lognormal":
        scores = 0.97 - 0.4 * wide * np.exp(z) + at * wide
    elif cell.noise == "bounded":
        scores = 1 - (1 - special.ndtr(z + at)) ** 2 / 10
    else:
        scores = 0.85 + wide * (z + at)
    if cell.noise == "grid":
        scores = np.round(scores * cell.rows) / cell.rows
    scores = np.clip(scores, 0.0, 1.0)
    failing = np.broadcast_to(np.asarray(cell.failing), cell.k)[:, None, None, None]
    return np.where(rng.random(shape) < failing, -math.inf, scores)


@dataclass(frozen=True)
class Truth:
    """What is so, from many seeds: π of every pair `[k, k]`, the median difference of the first two, and the
    median score of the first."""

    proportion: Array
    difference: float
    median: float


def truth(cell: Cell) -> Truth:
    """Where all are equal π and differences are known."""
    scores = draw(cell, np.random.default_rng(99), 100_000 // cell.workloads)[:, 0]
    middle = float(np.median(scores[0, 0]))
    proportion = np.full((cell.k, cell.k), 0.5)
    if cell.equal:
        return Truth(proportion, 0.0, middle)
    printed = np.round(scores, 4)
    votes = {(i, j): np.sign(np.sign(_minus(printed[i], printed[j])).sum(0))
             for i in range(cell.k) for j in range(cell.k) if i != j}  # fmt: skip
    for (i, j), vote in votes.items():
        proportion[i, j] = (vote > 0).sum() / (vote != 0).sum()
    apart = _minus(scores[0], scores[1]).mean(0)[votes[0, 1] != 0]
    return Truth(proportion, float(np.median(apart)), middle)


def _minus(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


# --- folders --------------------------------------------------------------------------------------------


def template() -> dict[str, Any]:
    """The flat configuration of a run with default settings."""
    parsing.register()
    folder = str(config_folder())
    with guarded(schema.TrainConfig), initialize_config_dir(folder, version_base="1.3"):
        return schema.flatten(parsing.typed(compose("config"), schema.TrainConfig))


class Folders:
    """The run folders of a study; run.json is written once, results anew for each report."""

    def __init__(self, root: Path, flat: dict[str, Any]) -> None:
        self.root, self.flat, self._created = root, flat, set[Path]()

    def clear(self) -> None:
        """Delete them."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        self._created.clear()

    def write(self, name: str, keys: dict[str, Any], score: float, loss: float) -> None:
        """A run that ends with this accuracy on validation and test, or diverges."""
        folder = self.root / name
        if folder not in self._created:
            folder.mkdir()
            self._created.add(folder)
            identity = {
                "format": FORMAT,
                "protocol": PROTOCOL,
                "config": {**self.flat, **keys},
                "data_sha256": str(keys.get("data.name")),
                "chance": {"accuracy": CHANCE, "loss": math.log(10)},
            }
            (folder / "run.json").write_text(json.dumps(identity))
        failed = math.isinf(score)
        line = {"step": 10, "epoch": 1, "train_seconds": 1.0, "loss/train": loss}
        line |= {} if failed else {"accuracy/val": score, METRIC: score}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        status = "diverged" if failed else "finished"
        final = {} if failed else {"accuracy/val": score, METRIC: score}
        best = None if failed else {"epoch": 1, "step": 10, **final}
        summary: dict[str, Any] = {"status": status, "reason": "", "final": final, "best": best}
        (folder / "summary.json").write_text(json.dumps(summary))


def report(cell: Cell, folders: Folders, rng: np.random.Generator) -> tuple[Array, dict[str, Any]]:
    """Draw a study, write its folders, and compare them: the reported scores `[k, workloads, n]`, NaN where a
    competitor lacks the seed, and what comparison.json says."""
    scores = draw(cell, rng, cell.n, cell.settings)
    searching = draw(cell, rng, 1, cell.settings) if cell.new_seeds else scores
    reported = np.full((cell.k, cell.workloads, cell.n), math.nan)
    for i in range(cell.k):
        tried = cell.settings if i == 0 else 1
        seeds = rng.integers(6, cell.n + 1) if cell.unequal else cell.n
        score = np.where(np.isinf(searching[i]), 0.0, searching[i]).mean((1, 2))
        chosen = int(np.argmax(score[:tried]))
        reported[i, :, :seeds] = scores[i, chosen, :, :seeds]
        for w in range(cell.workloads):
            of = {"data.split_seed": w} if cell.splits else {"data.name": f"data{w}"}
            keys: dict[str, Any] = {"optimizer.name": NAMES[i], **of}
            for s in range(seeds):
                for t in [chosen] if cell.new_seeds else range(tried):
                    final = {
                        "lr": 0.001 * (1 + t),
                        "seed": s,
                        **({"stage": "final"} if cell.new_seeds else {}),
                    }
                    name = f"{NAMES[i]}-{w}-{t}-{s}"
                    folders.write(name, {**keys, **final}, scores[i, t, w, s], rng.random())
            for t in range(tried) if cell.new_seeds else ():
                search = {"lr": 0.001 * (1 + t), "seed": 1000, "stage": "tune"}
                folders.write(
                    f"{NAMES[i]}-{w}-{t}-tune", {**keys, **search}, searching[i, t, w, 0], rng.random()
                )
    if cell.with_defaults:
        for i, row in enumerate(draw(cell, rng, cell.n)[:, 0, 0]):
            for s, score in enumerate(row):
                default = {"data.name": "data0", "lr": 0.01, "seed": s, "stage": "default"}
                keys = {"optimizer.name": NAMES[i], **default}
                folders.write(f"{NAMES[i]}-{s}-default", keys, score, rng.random())
    runs, problems = read.read_all(finding.find([str(folders.root)]))
    assert not problems, problems
    roles = axes.find(
        runs, by=["optimizer"], workloads=["data"] if cell.workloads > 1 and not cell.splits else []
    )
    result = study.analyse(runs, roles, METRIC, candidate="A" if cell.candidate else None)
    result.notes.extend(notes.notes(result))
    if cell.new_seeds or cell.unequal:  # other folders next time
        folders.clear()
    return reported, json.loads(files.to_json(numbers.as_dict(result)))


CLAIM = re.compile(
    r"(?:But |; |, |^)([A-L]) is ahead of ((?:[A-L](?: \([^)]*\))?(?:, | and )?)+)( on most seeds)?"
)


def speaks_of_defaults(content: dict[str, Any]) -> bool:
    """Whether anything is said of tuned against default settings without saying that it is no claim."""
    texts = [*content["verdict"]["sentences"], *content["notes"]]
    about = [
        text for text in texts if "default settings" in text and not text.startswith("A leaderboard shows")
    ]
    ahead = [p["ahead"] for p in content["first_against_shipped"]]
    ahead += [c["against_shipped"]["ahead"] for c in content["competitors"] if "against_shipped" in c]
    return any(ahead) or not all("no claim is made" in text.lower() for text in about)


def printed_claims(sentences: list[str]) -> set[tuple[str, str, bool]]:
    """Claims as a reader finds them: who, of whom, and whether with a reservation."""
    claims = set()
    for sentence in sentences:
        for match in CLAIM.finditer(sentence):
            for other in re.findall(r"[A-L](?= |,|:|$)", re.sub(r"\([^)]*\)", "", match[2])):
                claims.add((match[1], other, bool(match[3])))
    return claims


# --- one cell -------------------------------------------------------------------------------------------


def simulate(cell: Cell, count: int, seed: int = 0) -> dict[str, Any]:
    """Count over reports what was claimed, hidden, and covered."""
    rng, started = np.random.default_rng((seed, *cell.name.encode())), time.perf_counter()
    so, tally = truth(cell), Counter[str]()
    covered: dict[str, list[bool]] = {"share": [], "difference": [], "median": []}
    wrong = {
        (NAMES[i], NAMES[j]) for i in range(cell.k) for j in range(cell.k) if so.proportion[i, j] < 0.495
    }
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder) / "sweep"
        root.mkdir()
        folders = Folders(root, template())
        for _ in range(count):
            reported, content = report(cell, folders, rng)
            claims = {(c["ahead"], c["of"]): c["reservation"] for c in content["verdict"]["claims"]}
            printed = printed_claims(content["verdict"]["sentences"])
            tally["any"] += bool(claims) or speaks_of_defaults(content)
            names = {(a, b) for a, b, _ in printed}
            complete = not any("more such pair" in s for s in content["verdict"]["sentences"])
            agree = names == set(claims) if complete else names <= set(claims)
            tally["disagree"] += not agree or any(bool(claims[a, b]) != but for a, b, but in printed)
            tally["against"] += bool(wrong & set(claims))
            tally["found"] += ("A", "B") in claims
            hidden = [pair for pair, but in claims.items() if not but and _mean(reported, *pair) < 0]
            tally["hidden"] += bool(hidden)
            tally["opposite"] += any(_mean(reported, *pair) < 0 for pair in claims)
            for pair in content["pairs"]:
                if {pair["first"], pair["second"]} == {"A", "B"}:
                    sign = 1 if pair["first"] == "A" else -1
                    i, j = (0, 1) if sign > 0 else (1, 0)
                    _cover(covered["share"], pair["share_won"], so.proportion[i, j])
                    if cell.workloads == 1:
                        _cover(covered["difference"], pair["median_difference"], sign * so.difference)
            if cell.workloads == 1 and cell.settings == 1:
                first = next(c for c in content["competitors"] if c["name"] == "A")
                _cover(covered["median"], first["median"], so.median)
    minutes = (time.perf_counter() - started) / 60
    return {"cell": cell, "reports": count, **tally, "covered": covered, "minutes": minutes}


def _mean(scores: Array, a: str, b: str) -> float:
    """Mean of a less that of b over the seeds that both have, failed runs at chance, by workload, then over
    them."""
    x, y = scores[NAMES.index(a)], scores[NAMES.index(b)]
    both = ~np.isnan(x[0]) & ~np.isnan(y[0])
    apart = np.maximum(x[:, both], CHANCE) - np.maximum(y[:, both], CHANCE)
    return float(np.round(apart.mean(), 12))


def _cover(covered: list[bool], interval: dict[str, Any], so: float) -> None:
    """Note whether an interval holds the truth; where there is none, nothing."""
    if interval["low"] is None:
        return
    low, high = (
        -math.inf if end in ("failed", "-inf") else math.inf if end == "inf" else end
        for end in (interval["low"], interval["high"])
    )
    covered.append(low - 1e-9 <= so <= high + 1e-9)


def exact(count: int, total: int) -> tuple[float, float]:
    """Clopper's and Pearson's interval, by SciPy."""
    ends = stats.binomtest(count, total).proportion_ci(0.95, "exact")
    return float(ends.low), float(ends.high)


def faults(row: dict[str, Any]) -> list[str]:
    """What a cell fails in."""
    problems, n = [], row["reports"]
    if row["cell"].equal and exact(row.get("any", 0), n)[0] > 0.05:
        problems.append("claims among equals")
    if exact(row.get("against", 0), n)[0] > 0.025:
        problems.append("claims against the truth")
    for key, what in (("disagree", "sentences and numbers disagree"), ("hidden", "means are hidden")):
        if row.get(key):
            problems.append(f"{what} in {row[key]} reports")
    for what, held in row["covered"].items():
        if held and exact(sum(held), len(held))[1] < 0.93:
            problems.append(f"coverage of the {what}")
    return problems


HEADER = (
    "| cell | any claim | against the truth | A ahead of B | mean opposite (told) "
    "| share | difference | median | min |\n|---|---|---|---|---|---|---|---|---|"
)


def line(row: dict[str, Any]) -> str:
    """A row of the table, in per cent of reports."""
    n = row["reports"]

    def per_cent(key: str) -> str:
        return f"{100 * row.get(key, 0) / n:.1f}"

    cover = [f"{100 * np.mean(held):.1f}" if held else "" for held in row["covered"].values()]
    with_reservation = row.get("opposite", 0) - row.get("hidden", 0)
    bad = " **fails**" if faults(row) else ""
    cells_ = [row["cell"].name + bad, per_cent("any"), per_cent("against"), per_cent("found")]
    every = [*cells_, f"{row.get('opposite', 0)} ({with_reservation})", *cover, f"{row['minutes']:.1f}"]
    return f"| {' | '.join(every)} |"


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reports", type=int, default=2000, help="of each cell")
    parser.add_argument("--only", help="cells whose name has this in it")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    chosen = [cell for cell in cells() if given.only is None or given.only in cell.name]
    print(HEADER, flush=True)
    bad = 0
    with ProcessPoolExecutor(given.processes) as pool:
        for row in pool.map(simulate, chosen, [given.reports] * len(chosen)):
            print(line(row), flush=True)
            for fault in faults(row):
                bad += 1
                print(f"{row['cell'].name}: {fault}", file=sys.stderr, flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
