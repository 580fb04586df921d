"""Tuning: each optimizer's setting is searched on the validation part, then measured with other seeds.

Stage one trains the settings of a search with the tuning seeds; stage two the setting that was chosen, and
the optimizer's default one, with the final seeds. What was chosen follows from the summaries in the run
folders and from nothing else, so that the same command resumes after a kill and chooses the same.
"""

from __future__ import annotations

import dataclasses
import importlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import JobReturn

from ffn_bench import checks, tags
from ffn_bench.command_line import tables
from ffn_bench.command_line.console import make_console
from ffn_bench.configuration import fingerprint
from ffn_bench.errors import UserError
from ffn_bench.run_folder import files, reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.lock import Lock
from ffn_bench.sweeps import planning, sweep
from ffn_bench.sweeps.planning import Planned, Planner
from ffn_bench.sweeps.search_space import Axis, Setting, draws, parse, read_space
from ffn_bench.sweeps.trials import Choice, Combination, Trial, value_of

SEARCHES = ("grid", "random", "optuna", "none")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How it is searched: the keys that conf/tune/*.yaml sets below `hydra.sweeper`. Raises `UserError`.

    Seeds are a list, or text in Hydra's sweep syntax such as `range(1,31)`. `space` stands in for those
    of the optimizers' files.
    """

    search: str
    trials: int
    search_seed: int
    tuning_seeds: Any
    final_seeds: Any
    space: Mapping[str, Any] | None = None
    parallel_trials: int = 5
    """Trials that Optuna gives at a time, not knowing how the others of them end."""

    def __post_init__(self) -> None:
        checks.one_of(str(self.search), SEARCHES, "hydra.sweeper.search")
        for key in ("trials", "search_seed", "parallel_trials"):
            if type(getattr(self, key)) is not int:
                what = f"must be an integer, not {getattr(self, key)!r}"
                raise UserError(f"hydra.sweeper.{key}", what, "write a number such as 10")
        if not isinstance(self.space, (Mapping, NoneType)):
            todo = "write keys and their ranges, or leave it out"
            raise UserError("hydra.sweeper.space", f"{self.space!r} is not a mapping", todo)
        checks.check_seed(self.search_seed, "hydra.sweeper.search_seed")
        for key in ("trials", "parallel_trials"):
            checks.at_least(getattr(self, key), 1, f"hydra.sweeper.{key}")
        for key in ("tuning_seeds", "final_seeds"):
            object.__setattr__(self, key, _seeds(key, getattr(self, key)))
        if self.search != "none" and (both := set(self.tuning_seeds) & set(self.final_seeds)):
            what = f"seed {min(both)} is also one of hydra.sweeper.tuning_seeds"
            todo = "a setting must be measured with seeds that were not used to choose it: give others"
            raise UserError("hydra.sweeper.final_seeds", what, todo)


def _seeds(name: str, given: Any) -> tuple[int, ...]:
    key = f"hydra.sweeper.{name}"
    seeds = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if isinstance(given, str):
        value = parse("seed", given, key).value()
        seeds = list(value.range()) if isinstance(value, RangeSweep) else getattr(value, "list", [value])
    if not seeds or any(type(seed) is not int for seed in seeds):
        raise UserError(key, f"must be integers, not {given!r}", f"write {key}=[1,2,3]")
    for seed in seeds:
        checks.check_seed(seed, key)
    if len(set(seeds)) < len(seeds):
        raise UserError(key, "a seed is duplicated", "give each once")
    return tuple(seeds)


def _study(name: str, search_seed: int, tag: str) -> Any:
    """A study of Optuna's in memory, for the best value of a tag. Raises `UserError` without Optuna."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as e:
        todo = "pip install 'ffn-bench[optuna]'"
        raise UserError("hydra.sweeper.search", "Optuna is not installed", todo) from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=zlib.crc32(f"{search_seed} {name}".encode()))
    direction = "maximize" if tags.quantity(tag).higher_is_better else "minimize"
    return optuna.create_study(direction=direction, sampler=sampler)


# --- the search -----------------------------------------------------------------------------------------


class Tuning:
    """A search for every combination of a command line, planned and checked when it is made.

    `overrides` are the command line's. Raises `UserError` for whatever could not be searched or trained.
    """

    def __init__(self, planner: Planner, overrides: Sequence[Override], rules: Rules, limit: int) -> None:
        self.planner, self.rules = planner, rules
        self.folder = planner.folder
        ranges, fixed = self._split(overrides)
        bases = planning.jobs_of(fixed, limit)
        swept = [o.get_key_element() for o in fixed if o.is_sweep_override()]
        options = [self._option_of(base) for base in bases]
        spaces = {one: self._space_of(one, ranges) for one in dict.fromkeys(options)}
        settings = {one: self._settings(one, space) for one, space in spaces.items()}
        of_files = {one: read_space(planner.loader, one)[1].keys() for one in spaces}
        a_trial, a_final = len(rules.tuning_seeds), len(rules.final_seeds)
        searched = rules.search != "none"
        count = {one: rules.trials if rules.search == "optuna" else len(settings[one]) for one in spaces}
        total = sum(count[one] * a_trial + (1 + searched) * a_final for one in options)
        if total > limit:
            what = f"the tuning has {total:,} runs, the limit is {limit:,}"
            raise UserError("max_runs", what, "raise max_runs")
        given = {o.key_or_group for o in fixed}
        self.combinations = []
        for base, option in zip(bases, options, strict=True):
            tuned = {axis.key for axis in spaces[option]}
            if clash := sorted(tuned & given):
                todo = "leave it out"
                if clash[0] == "lr":
                    todo += ", or give a range: 'lr=tag(log,interval(1e-4,1e-1))'"
                raise UserError(clash[0], "is searched by +tune", todo)
            values = dict(override.split("=", 1) for override in base if "=" in override)
            shown = {key: values[key] for key in swept if key in values and key != "optimizer"}
            self.combinations.append(
                Combination(
                    base=tuple(base),
                    optimizer=option,
                    shown={"optimizer": option, **shown},
                    tuned=frozenset({"lr", *tuned, *of_files[option]} - given),
                    trials=[
                        Trial(setting, self._plans(base, setting, rules.tuning_seeds, "tune"))
                        for setting in settings[option]
                    ],
                    default=self._plans(base, (), rules.final_seeds, "default" if searched else "final"),
                )
            )
            if rules.search == "optuna":
                one = self.combinations[-1]
                one.study = _study(option, rules.search_seed, one.monitored)
        self._spaces = spaces
        self._rounds = self._ask() if rules.search == "optuna" else iter([self.search] if searched else [])
        self._next = next(self._rounds, [])
        self._check_validation()

    @staticmethod
    def _split(overrides: Sequence[Override]) -> tuple[dict[str, str], list[Override]]:
        """Ranges to search, given on the command line, and the rest."""
        for key, todo in (
            ("seed", "set hydra.sweeper.tuning_seeds and hydra.sweeper.final_seeds instead"),
            ("stage", "leave it out"),
        ):
            if any(o.key_or_group == key for o in overrides):
                raise UserError(key, "is set by +tune for every run", todo)
        ranges = {
            o.key_or_group: (o.input_line or "").partition("=")[2] for o in overrides if o.is_interval_sweep()
        }
        return ranges, [o for o in overrides if not o.is_interval_sweep()]

    def _option_of(self, base: Sequence[str]) -> str:
        """The option of the group `optimizer` that a combination uses."""
        # With the keys of the runs with default settings, for which Hydra need not be asked again then.
        job = [*base, f"seed={self.rules.final_seeds[0]}", "stage=default"]
        return str(self.planner.compose(job).hydra.runtime.choices.optimizer)

    def _space_of(self, option: str, ranges: Mapping[str, str]) -> list[Axis]:
        if self.rules.search == "none":
            if ranges:
                raise UserError(next(iter(ranges)), "has a range, but nothing is searched", "choose +tune=…")
            return []
        where = "hydra.sweeper.space"
        texts = self.rules.space
        if texts is None:
            where, texts = read_space(self.planner.loader, option)
        space = {key: Axis.read(key, text, where) for key, text in texts.items()}
        space |= {key: Axis.read(key, text, key) for key, text in ranges.items()}
        for key in ("seed", "stage", "optimizer", "optimizer.lr"):
            if key in space:
                raise UserError(where, f"{key} cannot be searched", "leave it out")
        if self.rules.search == "grid" and len(space) > 1:
            other = next(key for key in space if key != "lr")
            raise UserError(other, "a grid searches lr only", "search at random: +tune=random_25")
        return list(space.values())

    def _settings(self, option: str, space: Sequence[Axis]) -> list[Setting]:
        """What is tried for an optimizer, the same for every data set."""
        if not space or self.rules.search == "optuna":
            return []
        if self.rules.search == "grid":
            return [(f"{space[0].key}={value}",) for value in space[0].grid(self.rules.trials)]
        candidates = draws(space, option, self.rules.search_seed)
        return [setting for setting, _ in zip(candidates, range(self.rules.trials), strict=False)]

    def _plans(
        self, base: Sequence[str], setting: Setting, seeds: Sequence[int], stage: str
    ) -> list[Planned]:
        return [self.planner.plan([*base, *setting, f"seed={seed}", f"stage={stage}"]) for seed in seeds]

    def _check_validation(self) -> None:
        from ffn_bench.engine import build

        if self.rules.search != "none":
            for one in self.combinations:
                if not len(build.prepare(one.default[0].run).data.val.y):
                    what = "leaves no validation part, and settings are chosen on it"
                    raise UserError("data.val_fraction", what, "use a larger fraction, such as 0.15")

    @property
    def search(self) -> list[Planned]:
        """The runs of stage one."""
        return [planned for one in self.combinations for t in one.trials for planned in t.plans]

    def _ask(self) -> Iterator[list[Planned]]:
        """Runs of Optuna's trials, round after round; those of a round must have ended before the next.

        Optuna is told the scores of earlier rounds as the summaries say them, also where they were trained by
        an earlier command: its next trials are the same then, and no database is needed.
        """
        n_trials = 0
        while n_trials < self.rules.trials:
            pending: list[tuple[Combination, Any, Trial]] = []
            plans = []
            size = min(self.rules.parallel_trials, self.rules.trials - n_trials)
            for one in self.combinations:
                known = {t.setting: t for t in one.trials}
                for _ in range(size):
                    trial = one.study.ask()
                    setting = tuple(f"{a.key}={a.suggested(trial)}" for a in self._spaces[one.optimizer])
                    if setting not in known:
                        planned = self._plans(one.base, setting, self.rules.tuning_seeds, "tune")
                        known[setting] = Trial(setting, planned)
                        one.trials.append(known[setting])
                        plans += planned
                    pending.append((one, trial, known[setting]))
            n_trials += size
            if plans:
                yield plans
            state = importlib.import_module("optuna").trial.TrialState
            for one, trial, planned_trial in pending:
                if (score := planned_trial.score()) is None:
                    one.study.tell(trial, state=state.FAIL)
                else:
                    one.study.tell(trial, score[0])

    def unfinished(self) -> int:
        """How many runs of the search have neither ended nor failed."""
        over = (*reading.ENDED, "failed", reading.DAMAGED)
        return sum(p.status_and_summary()[0] not in over for p in self.search)

    def choose(self) -> list[Choice]:
        """Choose for every combination and plan stage two; to be called once, when the search has ended."""
        choices = []
        for one in self.combinations:
            if self.rules.search == "none":
                one.final, one.default = one.default, []
                choices.append(Choice(()))
                continue
            choice = one.choose()
            choices.append(choice)
            if choice.setting is None:
                continue
            chosen = next(t for t in one.trials if t.setting == choice.setting).plans[0].run
            default_run = dataclasses.replace(one.default[0].run, seed=chosen.seed)
            if fingerprint.fingerprint(chosen) == fingerprint.fingerprint(default_run):
                one.final, one.default = [self.planner.restage(p, "final") for p in one.default], []
            else:
                one.final = self._plans(one.base, choice.setting, self.rules.final_seeds, "final")
        return choices

    @property
    def finals(self) -> list[tuple[Planned, dict[str, str]]]:
        """The runs of stage two, with what is shown of each: the chosen setting's and the default one's."""
        runs = []
        for one in self.combinations:
            for word, plans in (("tuned" if one.trials else "default", one.final), ("default", one.default)):
                shown = {**one.shown, "setting": word}
                runs += [(planned, {**shown, "seed": str(planned.run.seed)}) for planned in plans]
        return runs

    def relabel(self) -> None:
        """Give the existing runs the stage this tuning gives them.

        A run keeps its folder when a search is made longer or a stage is no longer its own: run.json says
        what it is for now, and null for a run of these combinations that no longer is for anything.
        """
        stages = {p.folder.name: p.run.stage for p in [*self.search, *(p for p, _ in self.finals)]}
        for file in sorted(self.folder.glob("*/run.json")):
            folder = Folder(self.folder, (file.parent.name,))
            try:
                identity = reading.read_identity(folder)
            except UserError:
                continue  # it is reported as that run's failure
            if identity is None:
                continue
            noted, stage = identity["config"], stages.get(folder.name)
            ours = folder.name in stages or any(one.is_same(noted) for one in self.combinations)
            if ours and noted.get("stage") != stage:
                try:
                    lock = Lock(folder)
                except UserError:
                    continue  # another process trains there; any other cause is reported by `sweep`
                folder.replace("run.json", files.to_json({**identity, "config": {**noted, "stage": stage}}))
                lock.release()

    # --- training ---------------------------------------------------------------------------------------

    def run(self, launch: Launch) -> list[Sequence[JobReturn]]:
        """Search, choose, and train stage two; what is chosen and how it compares is printed.

        Raises `UserError` (status 1) in the end where a run failed. A signal ends it all, between the stages
        too.
        """
        view = make_console()
        returns: list[Sequence[JobReturn]] = []
        optuna, number = self.rules.search == "optuna", 0
        while self._next:
            heading = f"ffn-train: stage 1 of 2, the search: {self._words()}"
            if not (optuna and all(p.status_and_summary()[0] in reading.ENDED for p in self._next)):
                shown = sweep.LaunchDisplay(heading, self._shown(self._next), search=True)
                returns.append(launch(self._next, number, shown))
            if left := self.unfinished():
                view.print(
                    f"\n  {left:,} runs of the search have not ended; nothing is chosen until they have"
                )
                return returns
            number += len(self._next)
            self._next = next(self._rounds, [])
        choices = self.choose()
        self.relabel()
        if self.search:
            tables.show_choices(view, self._rows(choices), self._notes(choices))
        heading = "ffn-train: stage 2 of 2, chosen and default settings with the final seeds"
        if not self.search:
            heading = "ffn-train: the default settings with the final seeds"
        finals = self.finals
        if finals:
            shown = sweep.LaunchDisplay(heading, [settings for _, settings in finals])
            returns.append(launch([planned for planned, _ in finals], len(self.search), shown))
        if any(one.default and one.final for one in self.combinations):
            tables.show_gains(view, self._gains(), len(self.rules.final_seeds))
        if lost := [one.name for one, c in zip(self.combinations, choices, strict=True) if c.setting is None]:
            raise UserError(", ".join(lost), "every run of the search failed", "see above", status=1)
        return returns

    def show_status(self) -> None:
        """Print the status of every run, those of stage two as far as they are known. Trains nothing."""
        while self._next and not self.unfinished():
            self._next = next(self._rounds, [])
        known = not self.unfinished()
        choices = self.choose() if known else []
        plans = [*self.search, *(planned for planned, _ in self.finals)]
        planning.show_status(self.folder, [planned.overrides for planned in plans], plans)
        view = make_console()
        if not known:
            view.print("  the chosen settings' runs are planned when the search has ended")
        elif self.search:
            tables.show_choices(view, self._rows(choices), self._notes(choices))

    def _shown(self, plans: Sequence[Planned]) -> list[dict[str, str]]:
        """What names each of these runs of the search."""
        names = {}
        for one in self.combinations:
            for t in one.trials:
                setting = dict(override.removeprefix("optimizer.").split("=", 1) for override in t.setting)
                for p in t.plans:
                    names[p.folder] = {**one.shown, **setting, "seed": str(p.run.seed)}
        return [names[p.folder] for p in plans]

    def _words(self) -> str:
        counts = Counter(len(one.trials) for one in self.combinations)
        trials = " or ".join(f"{n:,}" for n in counts)
        if self.rules.search == "optuna":
            trials = f"{trials} of {self.rules.trials}"
        kinds = {"grid": "learning rates", "random": "random settings"}.get(
            self.rules.search, "settings of Optuna"
        )
        seeds = len(self.rules.tuning_seeds)
        each = f" for each of {len(self.combinations):,}" if len(self.combinations) > 1 else ""
        return f"{trials} {kinds}{each}" + (f", {seeds} seeds" if seeds > 1 else "")

    def _rows(self, choices: Sequence[Choice]) -> list[tuple[str, str, tuple[str, float], str]]:
        """For every combination its name, what was chosen, the score, and which runs went wrong."""
        rows = []
        for one, choice in zip(self.combinations, choices, strict=True):
            bad = [
                f"{choice.tally[s]:,} {s}" for s in ("diverged", "failed", reading.DAMAGED) if choice.tally[s]
            ]
            setting = " ".join(
                override.removeprefix("optimizer.") for override in choice.setting or ("nothing",)
            )
            rows.append((one.name, setting, (one.monitored, choice.score), ", ".join(bad)))
        return rows

    def _notes(self, choices: Sequence[Choice]) -> list[str]:
        notes = []
        for one, choice in zip(self.combinations, choices, strict=True):
            if choice.edge:
                rate, low, high = choice.edge
                tried = f"({low} to {high})"
                notes.append(
                    f"{one.name}: the best learning rate {rate} is at the edge of the searched range {tried}"
                )
            if failed := choice.tally["failed"] + choice.tally[reading.DAMAGED]:
                what = f"{failed:,} runs of the search failed and count as not measured"
                notes.append(f"{one.name}: {what}" + ("; nothing was chosen" * (choice.setting is None)))
            if choice.setting is not None and not one.default:
                notes.append(f"{one.name}: the default setting was best, and its runs count for both")
            if one.trials and len(one.trials) < self.rules.trials and self.rules.search != "optuna":
                notes.append(f"{one.name}: the space has {len(one.trials)} settings, all of which were tried")
        return notes

    def _gains(self) -> list[tuple[str, tags.Quantity, dict[str, list[float]]]]:
        """By combination, tuned minus default settings, seed by seed: scores at the best validation epoch."""
        rows = []
        for one in self.combinations:
            score = tags.quantity(one.monitored)  # what was searched for, where it is of held-out rows
            score = score if score in tags.HELD_OUT else tags.PRIMARY[one.task]
            differences: dict[str, list[float]] = {"val": [], "test": []}
            for tuned, default in zip(one.final, one.default, strict=False):
                for split, values in differences.items():
                    pair = [value_of(p.summary() or {}, score.tag(split)) for p in (tuned, default)]
                    if None not in pair:
                        first, second = float(pair[0] or 0.0), float(pair[1] or 0.0)
                        values.append(0.0 if first == second else first - second)  # as both diverged
            if one.default and one.final:
                rows.append((one.name, score, differences))
        return rows


Launch = Callable[[Sequence[Planned], int, sweep.LaunchDisplay], Sequence[JobReturn]]
"""Trains runs, the first of them with this number, and shows them so."""
