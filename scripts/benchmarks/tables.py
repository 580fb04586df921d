"""What the tables compare, and what they demand."""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import native
from benchmarks.homes import Homes, Program, program
from benchmarks.work import MIDDLE, SMALL, WIDE, Work

LECTURE = program("lecture's loop", "PyTorch", "pytorch.lecture_loop")
FUSED_1 = program("torch, fused, 1 thread", "PyTorch", "pytorch.fused", threads=1)
FUSED_2 = program("torch, fused, 2 threads", "PyTorch", "pytorch.fused", threads=2)
SCIKIT_LEARN = program("scikit-learn", "scikit-learn", "numpy_programs.scikit_learn")
LIGHTNING = program("Lightning", "Lightning", "pytorch.lightning_trainer")
JAX = program("JAX scan", "JAX", "jax_programs.scan")
VMAP = [program(f"JAX vmap + scan, {n}", "JAX", "jax_programs.scan", runs=n) for n in (8, 32, 128, 512)]
PRODUCTS = program("BLAS, products alone, 1 thread", "BLAS", "numpy_programs.products")
NATIVE = program("C, one core", "C", "native.native")
TORCH = program("torch engine", "torch engine", "ours.torch_engine")
MANUAL = program("torch engine, manual", "torch engine", "ours.torch_engine", gradient="manual")
COMPILED = program("compiled", "compiled", "ours.compiled")
SWEEPS = {
    work: [
        program(f"compiled, {n} runs", "compiled", "ours.compiled_sweep", runs=n, epochs=epochs)
        for n in counts
    ]
    for work, counts, epochs in ((SMALL, (8, 32, 128, 512), 7), (MIDDLE, (8, 32, 128), 2))
}
"""Runs of 2,100 steps, as many as the default run has, and of 100: they take a hundred times as long."""
AGAINST = "x lecture's loop"
EAGER_OF_BEFORE = 2.25
"""Times the lecture's loop: the eager engine of release 0.1.0, which no longer exists to be timed."""


def on_gpu() -> list[Program]:
    """The programs that a GPU can run, for `--device cuda`."""
    lecture, torch_engine = (
        dataclasses.replace(p, options=(*p.options, ("where", "cuda"))) for p in (LECTURE, TORCH)
    )
    batched = [
        program(f"batched, {n} runs", "batched", "ours.batched", runs=n, where="cuda")
        for n in (1, 8, 32, 128, 512, 1024, 8192)
    ]
    return [lecture, torch_engine, *batched, JAX, *VMAP]


def missing(one: Program) -> str | None:
    """What a program needs and this machine lacks."""
    if one.home == "C":
        return None if native.compiler() else "a C compiler"
    libraries = {"JAX": ("jax", "optax"), "Lightning": ("lightning",)}.get(one.home, ())
    absent = [name for name in libraries if importlib.util.find_spec(name) is None]
    return " and ".join(absent) or None


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A number and its limit."""

    what: str
    value: float | None
    """None where it could not be measured."""
    limit: float
    at_least: bool = True
    unit: str = "×"
    excuse: str = ""
    """Why it may be missed."""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return self.value is None or self.is_met or bool(self.excuse)

    @property
    def is_met(self) -> bool:
        """Whether the number was measured and keeps to the limit."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit


Speeds = Mapping[str, Sequence[float]]
"""Model-steps per second of programs by their names, one a round."""


def ratio(speeds: Speeds, one: str, other: str) -> float | None:
    """The median over the rounds of how many times as fast one program is as another in the same round."""
    if one not in speeds or other not in speeds:
        return None
    return statistics.median(a / b for a, b in zip(speeds[one], speeds[other], strict=True))


@dataclass(kw_only=True)
class Table:
    """What was measured, and what is demanded of it."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    """What is printed instead of the rows, if anything."""
    demands: list[Demand] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measured(homes: Homes, contestants: Sequence[tuple[Program, Work]], rounds: int) -> list[list[float]]:
    """Model-steps per second of all, one a round; they take turns, and never two work at once."""
    speeds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for values, (one, work) in zip(speeds, contestants, strict=True):
            values.append(homes.visit(one, work))
    return speeds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def _available(programs: Sequence[Program], table: Table) -> list[Program]:
    for one in programs:
        if lack := missing(one):
            table.notes.append(f"{one.home} is left out: this machine lacks {lack}.")
    return [one for one in programs if not missing(one)]


# --- the tables ---------------------------------------------------------------------------------------------


def speed(homes: Homes, rounds: int, device: str = "cpu") -> Table:
    """All programs, one run and many."""
    table = Table(title="Model-steps per second")
    both = [COMPILED, TORCH, MANUAL, LECTURE, FUSED_1, FUSED_2, SCIKIT_LEARN, LIGHTNING, PRODUCTS, JAX]
    programs = {SMALL: [*both, NATIVE, *VMAP, *SWEEPS[SMALL]], MIDDLE: [*both, *VMAP[:3], *SWEEPS[MIDDLE]]}
    if device == "cuda":
        programs = dict.fromkeys((SMALL, MIDDLE), on_gpu())
    for work, several in programs.items():
        several = _available(several, table)
        values = measured(homes, [(one, work) for one in several], rounds)
        speeds = {one.name: v for one, v in zip(several, values, strict=True)}
        for one in several:
            table.rows.append(
                {
                    "work": str(work),
                    "program": one.name,
                    "runs": one.runs,
                    "model-steps/s": spread(speeds[one.name]),
                    AGAINST: ratio(speeds, one.name, LECTURE.name),
                    "x JAX scan": ratio(speeds, one.name, JAX.name),
                }
            )
        if device == "cpu":
            table.demands += _of_small(speeds) if work == SMALL else _of_middle(speeds)
    table.notes, table.shown = list(dict.fromkeys(table.notes)), _side_by_side(table.rows)
    if device == "cpu":
        table.notes.append(f"BLAS is {homes.call('BLAS', 'numpy_programs.blas')}.")
    return table


def _side_by_side(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each program, with its median speed in every work and how many times the lecture's loop's."""
    works = dict.fromkeys(row["work"] for row in rows)
    shown: dict[str, dict[str, Any]] = {}
    for row in rows:
        own = shown.setdefault(row["program"], {"program": row["program"]})
        own[row["work"]] = f"{row['model-steps/s']['median']:,.0f}"
        own[f"× ({row['work'].split(',')[0]})"] = f"{row[AGAINST]:.1f}"
    columns = ["program", *(c for work in works for c in (work, f"× ({work.split(',')[0]})"))]
    return [{column: own.get(column) for column in columns} for own in shown.values()]


def _of_small(speeds: Speeds) -> list[Demand]:
    vmaps = [one.name for one in VMAP if one.name in speeds]
    best = max(vmaps, key=lambda name: statistics.median(speeds[name]), default="JAX vmap + scan")
    eager = 35 * EAGER_OF_BEFORE
    return [
        Demand(what="one run against JAX scan", value=ratio(speeds, COMPILED.name, JAX.name), limit=5),
        Demand(what="one run against C", value=ratio(speeds, COMPILED.name, NATIVE.name), limit=0.8),
        Demand(
            what=f"one run against the lecture's loop, 35 × {EAGER_OF_BEFORE}, the eager engine of before",
            value=ratio(speeds, COMPILED.name, LECTURE.name),
            limit=eager,
        ),
        *(
            Demand(what=f"{one.runs} runs against {best}", value=ratio(speeds, one.name, best), limit=2.5)
            for one in SWEEPS[SMALL]
            if one.runs >= 128
        ),
    ]


def _of_middle(speeds: Speeds) -> list[Demand]:
    return [
        Demand(
            what=f"{MIDDLE}: one run, one core, against torch's fused step, 2 threads",
            value=ratio(speeds, COMPILED.name, FUSED_2.name),
            limit=1.6,
        ),
        Demand(
            what=f"{MIDDLE}: a step against BLAS for its products alone, in time",
            value=ratio(speeds, PRODUCTS.name, COMPILED.name),
            limit=1.2,
            at_least=False,
        ),
    ]


def batch(homes: Homes, rounds: int) -> Table:
    """Batch sizes, one run, against PyTorch's fused eager step at its better number of threads."""
    table = Table(title="Batch sizes, microseconds of a step")
    sizes = ((2_000, 1), (8_000, 8), (9_600, 32), (10_240, 256), (10_000, 1_000), (9_600, 9_600))
    works = [Work(widths=SMALL.widths, rows=rows, batch_size=b) for rows, b in sizes]
    programs = (COMPILED, FUSED_1, FUSED_2)
    values = iter(measured(homes, [(one, work) for work in works for one in programs], rounds))
    for work in works:
        speeds = {one.name: next(values) for one in programs}
        better = max((FUSED_1.name, FUSED_2.name), key=lambda name: statistics.median(speeds[name]))
        times = ratio(speeds, COMPILED.name, better)
        row = {name: spread([1e6 / v for v in speed]) for name, speed in speeds.items()}
        table.rows.append({"work": str(work), **row, "x torch": times})
        table.demands.append(Demand(what=f"{work} against {better}", value=times, limit=2))
    return table


def variants(homes: Homes, rounds: int) -> Table:
    """Other activations, float64 and L2, beside ReLU in float32."""
    table = Table(title="Variants of the small network, model-steps per second")
    works = {
        "relu, float32": SMALL,
        "tanh": dataclasses.replace(SMALL, activation="tanh"),
        "sigmoid": dataclasses.replace(SMALL, activation="sigmoid"),
        "gelu": dataclasses.replace(SMALL, activation="gelu"),
        "float64": dataclasses.replace(SMALL, dtype="float64"),
        "L2": dataclasses.replace(SMALL, l2=1e-4),
    }
    values = measured(homes, [(COMPILED, work) for work in works.values()], rounds)
    speeds = dict(zip(works, values, strict=True))
    base = next(iter(works))
    for name in works:
        times = ratio(speeds, name, base)
        table.rows.append({"variant": name, "model-steps/s": spread(speeds[name]), f"x {base}": times})
        if name != base:
            limit = 0.4 if name == "gelu" else 0.6
            table.demands.append(Demand(what=f"{name} against {base}", value=times, limit=limit))
    return table


def rules(homes: Homes, rounds: int) -> Table:
    """Every update rule by itself."""
    table = Table(title="Update rules, microseconds for 1,121 parameters")
    for name, values in homes.call("compiled", "rules.times", rounds).items():
        table.rows.append({"rule": name, "µs": spread(values)})
        value = statistics.median(values)
        table.demands.append(Demand(what=name, value=value, limit=0.6, at_least=False, unit="µs"))
    return table


def wide(homes: Homes, rounds: int) -> Table:
    """Wide networks, one run on all cores, and what `engine=auto` chooses for them."""
    table = Table(title="Wide networks, milliseconds of a step")
    programs = (COMPILED, TORCH, FUSED_1, FUSED_2)
    values = iter(measured(homes, [(one, work) for work in WIDE for one in programs], rounds))
    for work in WIDE:
        speeds = {one.name: next(values) for one in programs}
        engine, reason = homes.call("compiled", "ours.chosen", work)
        times = ratio(speeds, COMPILED.name, FUSED_2.name)
        row = {name: spread([1e3 / v for v in speed]) for name, speed in speeds.items()}
        table.rows.append({"work": str(work), **row, "x torch, 2 threads": times, "auto chooses": engine})
        excuse = "" if engine == "compiled" else f"auto chooses {engine}: {reason}"
        what = f"{work} against torch's fused step, 2 threads"
        table.demands.append(Demand(what=what, value=times, limit=1, excuse=excuse))
    return table


TABLES: dict[str, Callable[[Homes, int], Table]] = {
    "speed": speed,
    "batch": batch,
    "variants": variants,
    "rules": rules,
    "wide": wide,
}
