"""Damaged and hostile run folders crossed with every command, generated: no traceback, the status that the
damage demands, nothing outside changed, sound neighbours complete and equal to the bit."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.lecture.command
import ffn_bench.predict.command
import ffn_bench.race.command
import ffn_bench.train
from conftest import Result
from ffn_bench.engine.metrics import Measurement
from ffn_bench.run_folder.files import MANIFEST, Folder
from ffn_bench.run_folder.reading import read_summary
from ffn_bench.run_folder.recorder import Record
from hostile import (
    DAMAGES,
    FILES,
    OUTSIDE,
    RUN_STATES,
    STATES,
    SWEEP_FILES,
    Case,
    add_unrelated_files,
    bytes_below,
    make_outside,
    of_the_sweep,
    rewrite_checkpoints,
)
from run_folder.test_survival import outcome

KEYS = (
    "data=moons",
    "data.n_samples=200",
    "model.hidden=[4]",
    "epochs=4",
    "log_every=3",
    "checkpoint_seconds=0",
)
WORDS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "train": (ffn_bench.train.main, ["ffn-train", *KEYS, "name=x"]),
    "status": (ffn_bench.train.main, ["ffn-train", *KEYS, "name=x", "status=true"]),
    "landscape": (
        ffn_bench.landscape.command.main,
        ["ffn-landscape", "run=outputs/x", "points=5", "directions=1", "save=drawn"],
    ),
    "landscape best": (
        ffn_bench.landscape.command.main,
        ["ffn-landscape", "run=outputs/x", "at=best", "points=5", "directions=1", "save=drawn"],
    ),
    "race": (
        ffn_bench.race.command.main,
        ["ffn-race", "surface=network", "run=outputs/x", "optimizers=[sgd]", "lr=0.1", "steps=2",
         "animation=false", "save=drawn"],
    ),
    "predict": (
        ffn_bench.predict.command.main,
        ["ffn-predict", "run=outputs/x", "split=test", "at=last", "out=drawn/p.csv"],
    ),
    "export": (ffn_bench.export.command.main, ["ffn-export", "run=outputs/x", "to=drawn/model.py"]),
    "sweep": (ffn_bench.train.main, ["ffn-train", "-m", *KEYS, "name=s", "seed=0,1,2"]),
    "sweep status": (ffn_bench.train.main, ["ffn-train", "-m", *KEYS, "name=s", "seed=0,1,2", "status=true"]),
    "lecture": (ffn_bench.lecture.command.main, ["ffn-lecture", "topic=descent", "save=drawn"]),
    "compare": (ffn_bench.compare.command.main, ["ffn-compare", "runs=outputs/sweeps/s", "save=report"]),
}  # fmt: skip


def run(command: str, cwd: Path, argv: list[str] | None = None) -> Result:
    """One of the commands, inside this process."""
    main, words = WORDS[command]
    before, here, code = sys.argv, Path.cwd(), 0
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    out, err = io.StringIO(), io.StringIO()
    os.chdir(cwd)
    sys.argv = argv or words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    finally:
        sys.argv = before
        os.chdir(here)
        torch.set_num_threads(1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Result(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def ending(how: str, step: int) -> Iterator[None]:
    """Let runs end at a step as if by a kill, or by a signal."""
    write = Record.write

    def written(self: Record, measurements: Sequence[Measurement]) -> None:
        write(self, measurements)
        if measurements[-1].step >= step:
            if how == "killed":
                raise SystemExit(137)
            stop = self.run.training.stop
            stop.requested, stop.number = True, signal.SIGTERM

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Record, "write", written)
        yield


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a sweep whose second and third run are, in every state; and what they come to in the end."""
    folder = tmp_path_factory.mktemp("stock")
    for state in RUN_STATES:
        here = folder / state
        here.mkdir()
        first = [*WORDS["sweep"][1][:-1], "seed=0"]
        assert run("train", here, first).code == 0
        with ending(state, 14) if state != "finished" else contextlib.nullcontext():
            run("train", here)
            run("sweep", here)
        make_outside(here / OUTSIDE)
    summaries = [read_summary(Folder(victim(folder / state))) for state in RUN_STATES]
    assert [one and one["status"] for one in summaries] == ["finished", None, "interrupted"]
    assert all(len(list(f.glob("checkpoint/step-*"))) == 2 for f in folder.glob("killed/outputs/x"))
    return folder


def victim(here: Path) -> Path:
    """The run of the sweep that is to be damaged."""
    return next((here / "outputs" / "sweeps" / "s").glob("*seed=1*"))


def neighbours(here: Path) -> list[Path]:
    return sorted(f for seed in (0, 2) for f in (here / "outputs" / "sweeps" / "s").glob(f"*seed={seed}*"))


def check(
    stock: Path,
    state: str,
    command: str,
    harm: Callable[[Path, Path], object],
    demanded: set[int],
) -> Result:
    """Do harm to a run, give the command, and hold everything else against what it was."""
    with tempfile.TemporaryDirectory() as name:
        here = Path(name) / "here"
        shutil.copytree(stock / state, here, symlinks=True)
        swept = command in ("sweep", "sweep status", "compare")
        folder = victim(here) if swept else here / "outputs" / "x"
        harm(folder, here / OUTSIDE)
        outside, kept = bytes_below(here / OUTSIDE), bytes_below(here)
        result = run(command, here)
        assert "Traceback" not in result.err, result.err
        assert result.code in demanded, (result.code, result.err, result.out)
        if result.code and not swept:
            assert result.err.count("\n") == 1, result.err
        assert bytes_below(here / OUTSIDE) == outside
        assert not list(Path(name).rglob("*canary*"))
        assert not list(here.rglob(".*.tmp"))
        after = bytes_below(here)
        for path, content in kept.items():
            if path.endswith(("kept.txt", "model.pt", "junk.safetensors", "mine", "odd\n")):
                moved = path.replace("best.safetensors/", "best-2.safetensors/")  # to make room for ours
                assert after.get(path, after.get(moved)) == content, path
        if result.code and not swept:  # refused: nothing at all has changed but for the lock's file
            changed = {p for p in kept.keys() | after.keys() if kept.get(p, ()) != after.get(p, ())}
            assert all(p.endswith((".lock", ".ffn-bench.jsonl")) or ".hydra" in p for p in changed), changed
        if command == "sweep" and result.code in (0, 1):  # 4: the sweep itself is refused
            for neighbour, reference in zip(neighbours(here), neighbours(stock / "finished"), strict=True):
                assert outcome(neighbour) == outcome(reference)
        elif command == "train" and result.code == 0:
            assert (read_summary(Folder(folder)) or {})["status"] == "finished"
        return result


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A case that is possible."""
    command = draw(st.sampled_from(["train", "sweep", "sweep", "status", "sweep status", "compare",
                                    "landscape", "landscape best", "race", "predict",
                                    "export"]))  # fmt: skip
    state = draw(st.sampled_from(RUN_STATES))
    return draw(
        st.builds(
            Case, st.just(command), st.just(state), st.sampled_from(FILES), st.sampled_from([*DAMAGES])
        ).filter(lambda case: case.possible)
    )


GENERATED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_what_must_come_of_no_damage(stock: Path) -> None:
    """The commands themselves work in every state."""
    for state in RUN_STATES:
        for command in WORDS:
            result = check(stock, state, command, lambda folder, outside: add_unrelated_files(folder), {0})
            assert "damaged" not in result.out + result.err


def check_case(stock: Path, case: Case) -> None:
    demanded = case.demanded()
    if case.command == "sweep":
        demanded = {1 if status else 0 for status in demanded}
    check(stock, case.state, case.command, case.act, demanded)


@pytest.mark.parametrize("file", FILES)
def test_every_damage_to_a_file_of_an_unfinished_run(stock: Path, file: str) -> None:
    for k, damage in enumerate(DAMAGES):
        case = Case("train", RUN_STATES[1 + k % 2], file, damage)
        if case.possible:
            check_case(stock, case)


@given(case=cases())
@settings(GENERATED, max_examples=130)
def test_a_damaged_file_gets_one_line(stock: Path, case: Case) -> None:
    check_case(stock, case)


OTHERS = st.lists(st.tuples(st.sampled_from(FILES), st.sampled_from([*DAMAGES])), max_size=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(6))
def test_many_damaged_files_get_one_line(stock: Path, seed: int) -> None:
    @hypothesis.seed(seed)
    @given(
        case=cases(),
        further=st.lists(st.tuples(st.sampled_from(FILES), st.sampled_from([*DAMAGES])), max_size=2),
    )
    @settings(GENERATED, derandomize=False, max_examples=500)
    def one(case: Case, further: list[tuple[str, str]]) -> None:
        """A damaged file, or several: then at least no traceback, and nothing outside is touched."""
        others = [replace(case, file=file, damage=damage) for file, damage in further]
        if not others or not all(other.possible for other in others):
            check_case(stock, case)
            return

        def harm(folder: Path, outside: Path) -> None:
            for one in (case, *others):
                with contextlib.suppress(OSError, ValueError, StopIteration):
                    one.act(folder, outside)

        check(stock, case.state, case.command, harm, {0, 1} if case.command == "sweep" else {0, 4})

    one()


SWEEPS = [(file, damage) for file in SWEEP_FILES for damage in DAMAGES]
SWEEPS = [one for one in SWEEPS if one[0] != ".lock" or one[1] not in ("flipped", "truncated")]


@pytest.mark.parametrize(
    ("file", "damage"),
    [pytest.param(*one, marks=[] if k % 6 == 0 else pytest.mark.slow) for k, one in enumerate(SWEEPS)],
)
def test_a_damaged_file_of_a_sweep(stock: Path, file: str, damage: str) -> None:
    def harm(folder: Path, outside: Path) -> None:
        DAMAGES[damage](folder.parent / file, outside)

    check(stock, "killed", "sweep", harm, of_the_sweep(file, damage))


@pytest.mark.parametrize("command", ["compare", "landscape", "race", "lecture"])
def test_a_report_into_a_persons_folder(stock: Path, tmp_path: Path, command: str) -> None:
    """Every name that the command writes is taken there: by a file, a folder, or a link."""
    make_outside(tmp_path / OUTSIDE)
    shutil.copytree(stock / "finished" / "outputs", tmp_path / "outputs", symlinks=True)
    assert run(command, tmp_path).code == 0
    save = tmp_path / ("report" if command == "compare" else "drawn")
    names = sorted(p.relative_to(save) for p in save.rglob("*") if p.is_file() and p.name != MANIFEST)
    assert len(names) >= 2
    shutil.rmtree(save)
    ways = itertools.cycle(["a person's file", "a folder", "a link to a file", "a link to nothing", "a pipe"])
    for name, way in zip(names, ways, strict=False):
        (save / name).parent.mkdir(parents=True, exist_ok=True)
        if way == "a person's file":
            (save / name).write_text("a person's")
        else:
            DAMAGES[way](save / name, tmp_path / OUTSIDE)
    outside, before = bytes_below(tmp_path / OUTSIDE), bytes_below(save)
    for _ in range(2):  # the second time ours are there, and make room for ours
        result = run(command, tmp_path)
        assert result.code == 0, result.err
        assert bytes_below(tmp_path / OUTSIDE) == outside
        after = bytes_below(save)
        assert {name: after[name] for name in before} == before
        renamed = {name.with_name(f"{name.stem}-2{name.suffix}") for name in names}
        written = {
            Path(name) for name, content in after.items() if name not in before and content is not None
        }
        assert {p for p in written if p.name != MANIFEST} == renamed


@pytest.mark.parametrize("change", STATES)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_checkpoint_of_another_state_is_refused(stock: Path, command: str, change: str) -> None:
    """Its checksum is right."""

    def harm(folder: Path, outside: Path) -> None:
        rewrite_checkpoints(folder, STATES[change])

    check(stock, "killed", command, harm, {1 if command == "sweep" else 4})


@pytest.mark.parametrize("change", ["another epoch", "time is not a number", "no network"])
def test_no_landscape_of_another_state(stock: Path, change: str) -> None:
    def harm(folder: Path, outside: Path) -> None:
        rewrite_checkpoints(folder, STATES[change])

    check(stock, "finished", "landscape", harm, {4})


@pytest.mark.parametrize("damage", DAMAGES)
def test_best_weights_that_are_damaged_are_refused(stock: Path, damage: str) -> None:
    case = Case("landscape best", RUN_STATES[len(damage) % 3], "best.safetensors", damage)
    result = check(stock, case.state, case.command, case.act, case.demanded())
    assert result.code == 0 or "best.safetensors" in result.err


@pytest.mark.parametrize("kind", ["a file", "a link", "a link to nothing", "a pipe"])
@pytest.mark.parametrize("command", ["sweep", "sweep status", "compare"])
def test_something_else_instead_of_a_runs_folder(stock: Path, command: str, kind: str) -> None:
    def harm(folder: Path, outside: Path) -> None:
        shutil.rmtree(folder)
        if kind == "a file":
            folder.write_text("a person's")
        elif kind == "a pipe":
            os.mkfifo(folder)
        else:
            folder.symlink_to(outside / ("papers" if kind == "a link" else "nothing"))

    check(stock, "killed", command, harm, {1 if command == "sweep" else 0})


def test_a_missing_event_file_is_reported(stock: Path) -> None:
    def harm(folder: Path, outside: Path) -> None:
        next(folder.glob("events.*")).unlink()

    for command in ("train", "sweep"):
        assert (
            "is missing: TensorBoard shows the run from step"
            in check(stock, "killed", command, harm, {0}).out
        )


def as_before_manifests(folder: Path) -> None:
    """What a folder of an earlier release is: no manifest, and sizes without hashes in its checkpoints."""

    def plain(state: dict[str, Any]) -> None:
        state["files"] = {name: noted["size"] for name, noted in state["files"].items()}

    rewrite_checkpoints(folder, plain)
    (folder / ".ffn-bench.jsonl").unlink()


def test_a_run_of_an_earlier_release_is_resumed(stock: Path, tmp_path: Path) -> None:
    """What it wrote is left alone where it cannot be proved ours; and once it went on, it is as any other."""
    here = tmp_path / "here"
    shutil.copytree(stock / "interrupted", here)
    folder = here / "outputs" / "x"
    as_before_manifests(folder)
    old = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    with ending("killed", 17):
        run("train", here)
    assert (folder / "summary-2.json").read_bytes() == old["summary.json"]
    assert (folder / "run.json").read_bytes() == old["run.json"]
    result = run("train", here)
    assert result.code == 0, result.err
    assert outcome(folder) == outcome(stock / "finished" / "outputs" / "x")
    notes = (folder / "train.log").read_text()
    assert "summary.json was not written by ffn-bench; it was renamed to summary-2.json" in notes


VALUES = {
    "accuracy/val": 7.0,
    "loss/val": -7,
    "epoch": 10**12,
    "train_seconds": "x",
    "lr": "1_0",
    "step": True,
}


@pytest.mark.parametrize("key", VALUES)
def test_an_impossible_value_of_an_earlier_release_is_refused(stock: Path, key: str) -> None:
    def harm(folder: Path, outside: Path) -> None:
        as_before_manifests(folder)
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        lines[1] = json.dumps({**json.loads(lines[1]), key: VALUES[key]}) + "\n"
        size = len("".join(lines))
        (folder / "metrics.jsonl").write_text("".join(lines))
        rewrite_checkpoints_of_lengths(folder, size)

    result = check(stock, "killed", "train", harm, {4})
    assert "line 2 is damaged" in result.err


def rewrite_checkpoints_of_lengths(folder: Path, longest: int) -> None:
    """Let every checkpoint of an earlier release have seen all of metrics.jsonl."""
    rewrite_checkpoints(folder, lambda state: state["files"].update({"metrics.jsonl": longest}))
    (folder / ".ffn-bench.jsonl").unlink()


@pytest.mark.parametrize("damage", ["junk", "a hole", "not UTF-8", "a list"])
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_damaged_line_of_an_earlier_release_is_refused(stock: Path, command: str, damage: str) -> None:
    """Where no hash tells, every line is looked at."""
    junk = {"junk": b"[red]", "a hole": b"\0", "not UTF-8": b"\xff", "a list": b"[1, 2]"}[damage]

    def harm(folder: Path, outside: Path) -> None:
        as_before_manifests(folder)
        first, *others = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_bytes(
            first + junk.ljust(len(others[0]) - 1) + b"\n" + b"".join(others[1:])
        )

    result = check(stock, "killed", command, harm, {1 if command == "sweep" else 4})
    assert "line 2 is damaged" in result.err + result.out
