"""The report: one HTML file that needs no other, readable offline, light and dark, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ffn_bench import __version__
from ffn_bench.command_line import plot_style
from ffn_bench.compare import verdict, wording
from ffn_bench.compare.figures.pieces import MANY
from ffn_bench.compare.study import Study
from ffn_bench.compare.tables import Table
from ffn_bench.errors import printable
from ffn_bench.tags import quantity

SECTIONS = (
    (
        "Curves",
        ("curves",),
        "Lines are the {aggregate} over seeds, bands what it comes to when seeds are drawn again (bootstrap, "
        "2,000 times, from 2.5 to 97.5 %): a picture of the spread that holds no level with few seeds.",
    ),
    ("How good, how sure", ("finals", "seeds-won"), ""),
    ("How fast", ("time-to-target", "profile"), ""),
    ("Over workloads", ("critical-difference",), ""),
    ("Tuning", ("sensitivity", "budget", "parallel"), ""),
    ("Failures", ("failures",), ""),
)
"""Headings, the beginnings of the names of their figures, and what is to be said above them."""

CAPTIONS = {
    "finals": (
        "Each small dot is a run. What lies off the scale is counted at the border, and is in every number."
    ),
    "seeds-won": (
        "Left, of the seeds that tell the two apart, the share that the first wins (½: no difference), "
        "with its "
        "exact 95 % interval; right, the median difference over them. The intervals are of each pair "
        "alone; what "
        "is claimed is corrected for all statements."
    ),
    "time-to-target": "A curve that ends below 100 % says that the other runs never met the target.",
    "profile": (
        "Further up and left is better. The score is the area under a curve from τ = 1 to 4; it depends on "
        "who else is compared."
    ),
    "sensitivity": "A broad hill is easy to tune. A cross: every run at that rate diverged.",
    "budget": "What tuning would have found had it stopped after so many trials, in any order.",
    "parallel": "A line a setting; the better its score, the stronger it is drawn.",
    "failures": "A run that failed (diverged, stopped by an error, killed) loses to every run that finished.",
    "critical-difference": "Ranks of the medians on each workload.",
}


def html(
    study: Study, drawings: Mapping[str, bytes], tables: Mapping[str, Table], command: str, made: str
) -> str:
    """The page. `drawings` are SVG by the name of the figure; `made` is when."""
    from jinja2 import Environment, StrictUndefined

    source = files("ffn_bench.compare").joinpath("report.html").read_text(encoding="utf-8")
    made_of = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    template = made_of.from_string(source)
    sections = []
    for heading, beginnings, above in SECTIONS:
        found = [
            {
                "name": name,
                "svg": inline(drawings[name]),
                "caption": CAPTIONS.get(_kind(name), ""),
                **_tab(name),
            }
            for beginning in beginnings
            for name in drawings
            if _kind(name) == beginning
        ]
        if found:
            aggregate = wording.AGGREGATES[study.aggregate]
            sections.append(
                {"heading": heading, "above": above.format(aggregate=aggregate), "figures": found}
            )
    return template.render(
        title=wording.title(study),
        verdict=verdict.sentences(study),
        facts=wording.facts(study),
        notes=study.notes,
        method=method(study),
        summary=tables["summary"],
        details={name: table for name, table in tables.items() if name not in ("summary", "runs")},
        series=[{"name": c.name, "k": k} for k, c in enumerate(study.competitors[:MANY])],
        hidden=max(0, len(study.competitors) - MANY),
        sections=sections,
        command=command,
        version=__version__,
        made=made,
        variables=variables(),
    )


def method(study: Study) -> list[str]:
    """How the numbers were made: what holds for this study."""
    found = []
    chosen = any(run.curves.get(study.selecting) is not None for run in study.runs)
    if any(len(cell.trials) > 1 for c in study.competitors for cell in c.cells.values()):
        worst = "0" if quantity(study.selecting).higher_is_better else "∞"
        found.append(
            "A setting is chosen by its mean validation score over its seeds, at each run's best epoch; a "
            f"run that failed scores {worst} there. A setting with fewer seeds than others cannot be chosen."
        )
    if study.metric == study.selecting:
        found.append("A run is reported at the epoch with its best validation score, and at its end.")
    elif chosen:
        found.append(
            "A run is reported at the epoch with its best validation score, and at its end. The test part "
            "chooses nothing."
        )
    else:
        found.append("There is no validation part: a run is reported at its end.")
    if study.pairs:
        several = any(pair.sums_up for pair in study.pairs)
        over = "workloads" if len(study.workloads) > 1 else "splits"
        most = f" Over several {over} a seed's vote is that of the most of them." * several
        found.append(
            "What depends on the seed alone (initial weights of the same network, order of the data) is "
            "shared by all competitors at one seed, so they are compared seed by seed. A seed votes for the "
            "better of the two; a run that failed loses to every one that finished; what the report prints "
            "alike ties." + most
        )
        made = (
            f"the statements “{study.candidate} is ahead” of each of the others"
            if study.candidate
            else "all statements of the report (both directions of every pair)"
        )
        found.append(
            "“Ahead” means: wins more often than not, of the seeds that decide. The test is the exact sign "
            f"test; {made} are corrected together (Holm, 1979), so that of reports on equals at most one in "
            "twenty claims anything. It is neither the mean nor a size: look at the points and the failures, "
            "too."
        )
        if study.candidate:
            found.append(
                "Beside a claim stands the lower end of a one-sided interval, as the test has one side."
            )
    if any(c.against_default for c in study.competitors):
        found.append("Of settings as shipped the report counts seeds; it claims nothing of them.")
    if study.pairs:
        found.append(
            "Intervals hold 95 %, each by itself, with any number of seeds: of shares Clopper's and "
            "Pearson's, of medians the order statistics (below six numbers there are none)."
        )
    else:
        found.append(
            "Intervals hold 95 %: of medians the order statistics (below six numbers there are none)."
        )
    if any(cell.choices > 1 for c in study.competitors for cell in c.cells.values()):
        priced = "p-values are multiplied by the numbers of settings of both sides, and " * bool(study.pairs)
        found.append(f"The reported seeds chose the settings: {priced}intervals are wider.")
    found.append(
        "Means, the interquartile mean (the mean of the middle half) and curves describe; a run that failed "
        "is in a mean as what chance gives."
    )
    if study.targets:
        found.append(
            "Time to target: the first measurement on validation that meets the target; a miss is ∞ and "
            "enters the median. Seconds are of training only, without evaluation and logging."
        )
    return found


def _shown(value: Any) -> Any:
    """Text as it stands in the page; what is HTML already stays."""
    return printable(value) if type(value) is str else value


def _kind(name: str) -> str:
    """The figure that a file's name is of."""
    known = sorted((b for _, beginnings, _ in SECTIONS for b in beginnings), key=len, reverse=True)
    return next(b for b in known if name.startswith(b))


def _tab(name: str) -> dict[str, str]:
    """Curves stand behind one another, a tab for each axis of time."""
    match = re.fullmatch(r"curves-(epochs|steps|seconds)(?:-(.*))?", name)
    return {"tab": match[1], "group": match[2] or "all"} if match else {"tab": "", "group": ""}


def inline(svg: bytes) -> Any:
    """An SVG fit to stand in a page: without its header, in the page's colours and at the page's width."""
    from markupsafe import Markup

    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )
    numbers = {colour: number for number, colour in enumerate(plot_style.COLOURS)}

    def recoloured(tag: re.Match[str]) -> str:
        return re.sub("|".join(numbers), lambda colour: f"var(--c{numbers[colour[0]]})", tag[0])

    text = re.sub("<[^>]*>", recoloured, text)  # a name may look like a colour
    return Markup(text)  # matplotlib has escaped every text in it


DARK = (
    "#e8eaed",
    "#a3abb5",
    "#353b44",
    "#16191d",
    "#5aa9e6",
    "#f28e4b",
    "#35c49a",
    "#e79ac0",
    "#dcb43c",
    "#8fd0f5",
    "#b59ae0",
    "#b0b0b0",
)
"""For a dark page, in the order of `style.COLOURS`."""


def variables() -> dict[str, list[str]]:
    """The colours of both kinds of page, as declarations of CSS."""
    return {
        kind: [f"--c{number}: {value};" for number, value in enumerate(values)]
        for kind, values in (("light", plot_style.COLOURS), ("dark", DARK))
    }
