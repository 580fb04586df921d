"""The report: one self-contained HTML file, readable offline, light and dark, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ffn_bench import __version__, plot_style
from ffn_bench.compare import verdict, wording
from ffn_bench.compare.figures.pieces import MAX_SERIES
from ffn_bench.compare.study import Study
from ffn_bench.compare.tables import Table
from ffn_bench.errors import printable

SECTIONS = (
    (
        "Curves",
        ("curves",),
        "Lines are the {aggregate} over seeds, bands its range when seeds are resampled (bootstrap, 2,000 "
        "times, from 2.5 to 97.5 %): a picture of the spread, without guaranteed coverage with few seeds.",
    ),
    ("How good, how certain", ("finals", "seeds-won"), ""),
    ("How fast", ("time-to-target", "profile"), ""),
    ("Over workloads", ("critical-difference",), ""),
    ("Tuning", ("sensitivity", "budget", "parallel"), ""),
    ("Failures", ("failures",), ""),
)
"""Headings, the prefixes of the names of their figures, and the text above them."""

CAPTIONS = {
    "finals": (
        "Each small dot is a run. Runs off the scale are counted at the border, and included in every number."
    ),
    "seeds-won": (
        "Left, the share of the deciding seeds that the first wins (½: no difference), with its exact 95 % "
        "interval; right, the median difference over these seeds. The intervals are for each pair alone; "
        "claims are corrected for the number of statements."
    ),
    "time-to-target": "Where a curve ends below 100 %, the other runs never met the target.",
    "profile": (
        "Further up and left is better. The score is the area under a curve from τ = 1 to 4; it depends on "
        "the other competitors."
    ),
    "sensitivity": "A broad optimum is easy to tune. A cross: every run at that rate diverged.",
    "budget": "The best score had tuning stopped after so many trials, over all orders of the trials.",
    "parallel": "One line per setting; the better its score, the stronger the line.",
    "failures": "A run that failed (diverged, stopped by an error, killed) loses to every run that finished.",
    "critical-difference": "Ranks of the medians on each workload.",
}


def html(
    study: Study, drawings: Mapping[str, bytes], tables: Mapping[str, Table], command: str, created: str
) -> str:
    """The page. `drawings` are SVG by the name of the figure; `created` is the time."""
    from jinja2 import Environment, StrictUndefined

    source = files("ffn_bench.compare").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    template = environment.from_string(source)
    sections = []
    for heading, beginnings, above in SECTIONS:
        shown = [
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
        if shown:
            aggregate = wording.AGGREGATES[study.aggregate]
            sections.append(
                {"heading": heading, "above": above.format(aggregate=aggregate), "figures": shown}
            )
    return template.render(
        title=wording.title(study),
        verdict=verdict.sentences(study),
        facts=wording.facts(study),
        notes=study.notes,
        method=method(study),
        summary=tables["summary"],
        details={name: table for name, table in tables.items() if name not in ("summary", "runs")},
        series=[{"name": c.name, "k": k} for k, c in enumerate(study.competitors[:MAX_SERIES])],
        hidden=max(0, len(study.competitors) - MAX_SERIES),
        sections=sections,
        command=command,
        version=__version__,
        created=created,
        variables=variables(),
    )


def method(study: Study) -> list[str]:
    """How the numbers were computed, as far as it applies to this study."""
    lines = []
    chosen = any(run.curves.get(study.selecting) is not None for run in study.runs)
    if any(len(cell.trials) > 1 for c in study.competitors for cell in c.cells.values()):
        worst = wording.worst(study.selecting)
        lines.append(
            "A setting is chosen by its mean validation score over its seeds, at each run's best epoch; a "
            f"run that failed scores {worst} there. A setting with fewer seeds than others cannot be chosen."
        )
    if study.metric == study.selecting:
        lines.append("A run is reported at the epoch with its best validation score, and at its end.")
    elif chosen:
        lines.append(
            "A run is reported at the epoch with its best validation score, and at its end. Nothing is "
            "chosen on the test set."
        )
    else:
        lines.append("There is no validation set: a run is reported at its end.")
    if study.pairs:
        several = any(pair.sums_up for pair in study.pairs)
        over = "workloads" if len(study.workloads) > 1 else "splits"
        most = f" Over several {over} a seed's vote is that of the majority of them." * several
        lines.append(
            "What depends on the seed alone (initial weights of the same network, order of the data) is "
            "shared by all competitors at one seed, so they are compared seed by seed. A seed votes for the "
            "better of the two; a run that failed loses to every run that finished; scores that the report "
            "prints alike tie." + most
        )
        tested = (
            f"the statements “{study.candidate} is ahead” of each of the others"
            if study.candidate
            else "all statements of the report (both directions of every pair)"
        )
        lines.append(
            "“Ahead” means: more likely than the other to win a seed that decides. The test is the exact "
            f"sign test; {tested} are corrected together (Holm, 1979), so that at most one in twenty "
            "reports on equal competitors claims anything. It says nothing about the mean or the size of a "
            "difference: look at the points and the failures, too."
        )
        if study.candidate:
            lines.append(
                "A claim is printed with the lower end of a one-sided interval, as the test is one-sided."
            )
    if any(c.against_default for c in study.competitors):
        lines.append("For default settings the report counts seeds; it claims nothing about them.")
    if study.pairs:
        lines.append(
            "Each interval by itself has at least 95 % coverage with any number of seeds: for shares Clopper "
            "and Pearson's, for medians by order statistics (below six numbers there is none)."
        )
    else:
        lines.append(
            "Intervals have at least 95 % coverage: for medians by order statistics (below six numbers there "
            "is none)."
        )
    if any(cell.choices > 1 for c in study.competitors for cell in c.cells.values()):
        priced = "p-values are multiplied by the numbers of settings of both sides, and " * bool(study.pairs)
        lines.append(f"The reported seeds chose the settings: {priced}intervals are wider.")
    lines.append(
        "Means, the interquartile mean (the mean of the middle half) and curves are descriptive; in a mean, "
        "a run that failed counts as chance level."
    )
    if study.targets:
        lines.append(
            "Time to target: the first measurement on validation that meets the target; a miss is ∞ and "
            "enters the median. Seconds are of training only, without evaluation and logging."
        )
    return lines


def _shown(value: Any) -> Any:
    """Text for the page; HTML stays as it is."""
    return printable(value) if type(value) is str else value


def _kind(name: str) -> str:
    """The kind of figure that a file's name belongs to."""
    known = sorted((b for _, beginnings, _ in SECTIONS for b in beginnings), key=len, reverse=True)
    return next(b for b in known if name.startswith(b))


def _tab(name: str) -> dict[str, str]:
    """Curves are on tabs, one for each axis of time."""
    match = re.fullmatch(r"curves-(epochs|steps|seconds)(?:-(.*))?", name)
    return {"tab": match[1], "group": match[2] or "all"} if match else {"tab": "", "group": ""}


def inline(svg: bytes) -> Any:
    """An SVG for embedding in the page: without its header, in the page's colours and at the page's width."""
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
