"""Whose files are whose: what a person has in a folder of ours is never lost, whatever we do there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from conftest import Command, call, files_below
from ffn_bench.compare.command import REPORT_FILES
from ffn_bench.compare.command import main as compare_main
from ffn_bench.errors import UserError
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.appended import Appended
from ffn_bench.run_folder.files import MANIFEST, Folder
from ffn_bench.run_folder.lock import Lock, holder
from hostile import DAMAGES, bytes_below, make_outside
from run_folders import write_run

NAMES = ("report.html", "comparison.json", "figures/curves.png", "figures/finals.svg", "tables/runs.csv")
names = st.sampled_from(NAMES)


class Shared(RuleBasedStateMachine):
    """We and a person write into one folder; every text of the person's is there until the person takes it
    away, and outside nothing changes."""

    def __init__(self) -> None:
        super().__init__()
        self.here = Path(tempfile.mkdtemp())
        make_outside(self.here / "outside")
        self.outside = bytes_below(self.here / "outside")
        self.root = self.here / "report"
        self.count, self.foreign_texts = 0, set[str]()

    def teardown(self) -> None:
        shutil.rmtree(self.here)

    def _text(self, who: str) -> str:
        self.count += 1
        return f"{who}-{self.count}."

    # --- we ---

    @rule(chosen=st.sets(names))
    def publish(self, chosen: set[str]) -> None:
        self._ours(
            lambda f: f.publish({n: self._text("ours").encode() for n in sorted(chosen)}, REPORT_FILES)
        )

    @rule(name=names)
    def replace(self, name: str) -> None:
        self._ours(lambda f: f.replace(name, self._text("ours").encode()))

    @rule(name=names)
    def write_output(self, name: str) -> None:
        """Under a name that the person gives."""
        self._ours(lambda f: f.write_output(name, [self._text("ours").encode(), b"more"]))

    @rule(name=names)
    def killed_while_computing_an_output(self, name: str) -> None:
        def pieces() -> Iterator[bytes]:
            yield self._text("ours").encode()
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            self._ours(lambda f: f.write_output(name, pieces()))

    @rule(name=names)
    def retire(self, name: str) -> None:
        self._ours(lambda f: f.retire(name))

    @rule(name=names)
    def killed_while_writing(self, name: str) -> None:
        def kill(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "rename", kill)
            patched.setattr(os, "unlink", kill)
            with pytest.raises(KeyboardInterrupt):
                self._ours(lambda f: f.put(name, self._text("ours").encode()))
                raise KeyboardInterrupt  # where it was refused
        self._ours(lambda f: f.remove_temporary_files())

    def _ours(self, act: object) -> None:
        try:
            act(Folder(self.root))  # type: ignore[operator]
        except UserError as e:
            assert e.status == 4

    # --- the person ---

    @rule(name=names)
    def write(self, name: str) -> None:
        path = self.root / name
        if path.parent.is_symlink() or path.parent.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._forget(path)
        text = self._text("theirs")
        path.write_text(text)
        self.foreign_texts.add(text)

    @rule(name=names)
    def edit(self, name: str) -> None:
        path = self.root / name
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            text = self._text("theirs")
            with path.open("a") as file:
                file.write(text)
            self.foreign_texts.add(text)

    @rule(name=names, to=st.sampled_from(["thesis.txt", "papers", "nothing"]))
    def link(self, name: str, to: str) -> None:
        path = self.root / name
        if path.parent.is_symlink() or path.parent.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._forget(path)
        path.symlink_to(self.here / "outside" / to)

    @rule(name=st.sampled_from(["figures", "tables"]))
    def link_a_folder(self, name: str) -> None:
        path = self.root / name
        if not os.path.lexists(path) and self.root.is_dir():
            path.symlink_to(self.here / "outside" / "papers")

    @rule(name=names)
    def link_hard(self, name: str) -> None:
        path = self.root / name
        if path.parent.is_dir() and not os.path.lexists(path) and not path.parent.is_symlink():
            os.link(self.here / "outside" / "thesis.txt", path)

    @rule(name=names)
    def folder(self, name: str) -> None:
        path = self.root / name
        if path.parent.is_dir() and not os.path.lexists(path) and not path.parent.is_symlink():
            path.mkdir()
            text = self._text("theirs")
            (path / "inside.txt").write_text(text)
            self.foreign_texts.add(text)

    def _forget(self, path: Path) -> None:
        """The person takes something away."""
        for file in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else [])]:
            if file.is_file() and not file.is_symlink():
                content = file.read_text()
                self.foreign_texts = {text for text in self.foreign_texts if text not in content}
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert bytes_below(self.here / "outside") == self.outside
        content = "".join(p.read_text() for p in self.root.rglob("*") if p.is_file() and not p.is_symlink())
        assert {text for text in self.foreign_texts if text not in content} == set()
        assert not list(self.root.rglob(".*.tmp"))


Shared.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, database=None
)
TestShared = Shared.TestCase


@pytest.mark.parametrize("first", ["{}", "[1]", "a person's notes", '{"ffn-bench manifest": 2}'])
def test_a_manifest_that_is_none_owns_nothing(tmp_path: Path, first: str) -> None:
    (tmp_path / MANIFEST).write_text(first + "\n")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UserError, match="not a manifest of ffn-bench"):
        Folder(tmp_path).put("report.html", b"ours")
    assert (tmp_path / MANIFEST).read_text() == first + "\n"


@pytest.mark.parametrize(
    "name",
    ["../outside/thesis.txt", "/etc/hostname", "figures/../../outside/thesis.txt", "", ".", "a\0b", "a" * 300,
     "\ud800"],
)  # fmt: skip
def test_names_of_a_manifest_stay_below(tmp_path: Path, name: str) -> None:
    """A manifest from elsewhere names a person's file, its content, and wants it deleted."""
    make_outside(tmp_path / "outside")
    before = bytes_below(tmp_path / "outside")
    content = (tmp_path / "outside" / "thesis.txt").read_bytes()
    folder = Folder(tmp_path / "report")
    folder.put("report.html", b"x")
    digest = hashlib.sha256(content).hexdigest()
    entry = {"file": name, "size": len(content), "sha256": digest, "temporary": name}
    with (tmp_path / "report" / MANIFEST).open("a") as manifest:
        manifest.write(json.dumps(entry) + "\n")
    folder.publish({}, re.compile(".*", re.DOTALL))
    assert bytes_below(tmp_path / "outside") == before


@pytest.mark.parametrize(
    "name", ["thesis.txt", "sub/thesis.txt", ".x.tmp", "a" * 300, "\\ud800", "a\\u0000b"]
)
def test_a_manifest_cannot_call_a_persons_file_temporary(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path)
    folder.put("report.html", b"x")
    (tmp_path / "sub").mkdir()
    for file in ("thesis.txt", "sub/thesis.txt", ".x.tmp"):
        (tmp_path / file).write_text("years")
    with (tmp_path / MANIFEST).open("a") as manifest:
        manifest.write(f'{{"temporary": "{name}"}}\n{{"file": "{name}", "temporary": "{name}"}}\n')
    folder.remove_temporary_files()
    for file in ("thesis.txt", "sub/thesis.txt", ".x.tmp"):
        assert (tmp_path / file).read_text() == "years"


def test_a_temporary_file_is_beside_the_one_it_becomes(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("report.html", b"x")
    foreign_file = tmp_path / "sub" / f".report.html.{'0' * 16}.tmp"
    foreign_file.parent.mkdir()
    foreign_file.write_text("years")
    with (tmp_path / MANIFEST).open("a") as manifest:
        line = {"file": "report.html", "temporary": foreign_file.relative_to(tmp_path).as_posix()}
        manifest.write(json.dumps(line) + "\n")
    folder.remove_temporary_files()
    assert foreign_file.read_text() == "years"


def test_temporary_files_are_new_and_cannot_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    for _ in range(2):
        folder.put("report.html", b"x")
    lines = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()[1:]]
    assert len({line["temporary"] for line in lines}) == len(lines) == 2

    monkeypatch.setattr(secrets, "token_hex", lambda n: "0" * 2 * n)  # as if it had been guessed
    foreign_file = tmp_path / f".report.html.{'0' * 16}.tmp"
    foreign_file.write_text("years")
    with pytest.raises(FileExistsError):
        folder.put("report.html", b"y")
    assert foreign_file.read_text() == "years"


def test_a_file_of_the_same_size_is_not_ours(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("report.html", b"ours")
    (tmp_path / "report.html").write_text("mine")
    assert folder.put("report.html", b"more") == "report-2.html"
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "sub/../../x", "..", "/x"])
def test_no_name_leaves_a_folder(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "report")
    folder.put("report.html", b"x")
    with pytest.raises(UserError, match="outside"):
        Folder.below(folder.root, name)
    if not name.startswith("/"):
        with pytest.raises(UserError, match="outside"):
            folder.put(f"{name}/y", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_no_more_of_a_file_is_read_than_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert Folder(tmp_path).read("x", 5) == b"12345"
    with pytest.raises(UserError, match="too large"):
        Folder(tmp_path).read("x", 4)


@pytest.mark.parametrize("content", ["", "a person's note\n"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_new_log_must_not_exist_yet(tmp_path: Path, content: str, strict: bool) -> None:
    (tmp_path / "train.log").write_text(content)
    log = Appended(Folder(tmp_path), "train.log", strict)
    log.write(b"ours\n")
    with pytest.raises(UserError, match="already exists"):
        log.flush()
    assert (tmp_path / "train.log").read_text() == content


def test_a_persons_log_is_moved_and_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("a person's note\n")
    assert Folder(tmp_path).retire_log("train.log") == "train-2.log"
    assert (tmp_path / "train-2.log").read_text() == "a person's note\n"


@pytest.mark.parametrize("damage", ["a link to a file", "a link to nothing", "a folder", "a pipe"])
def test_a_lock_that_is_no_file_is_refused_and_nobody_holds_it(tmp_path: Path, damage: str) -> None:
    make_outside(tmp_path / "outside")
    folder = Folder(tmp_path / "report")
    folder.path.mkdir()
    DAMAGES[damage](folder.path / ".lock", tmp_path / "outside")
    before = bytes_below(tmp_path / "outside")
    assert holder(folder) is None
    with pytest.raises(UserError, match=r"\.lock"):
        Lock(folder)
    assert bytes_below(tmp_path / "outside") == before


def test_the_text_of_a_persons_lock_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("a person's note\n")
    lock = Lock(Folder(tmp_path))
    lock.release()
    assert (tmp_path / ".lock").read_text() == "a person's note\n"


def test_a_persons_file_that_is_called_as_the_manifest(ffn: Command, tmp_path: Path) -> None:
    for command, folder in ((["name=n"], "n"), (["-m", "seed=0,1", "name=n"], "sweeps/n")):
        foreign_file = tmp_path / "outputs" / folder / MANIFEST
        foreign_file.parent.mkdir(parents=True, exist_ok=True)
        foreign_file.write_text("my notes\n")
        result = ffn(*command, "data=moons", "epochs=1")
        assert result.code == 4 and result.err.count("\n") == 1, result.err
        assert foreign_file.read_text() == "my notes\n"


def test_a_torn_line_of_the_manifest_costs_that_line_only(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("report.html", b"1")
    with (tmp_path / MANIFEST).open("a") as manifest:
        manifest.write('{"file": "comparison.json", "si')
    folder.put("figures/a.png", b"2")
    assert folder.owns("report.html") and folder.owns("figures/a.png")


def test_a_log_that_somebody_else_writes_to_is_not_written_any_more(tmp_path: Path) -> None:
    log, shared = (
        Appended(Folder(tmp_path), "metrics.jsonl"),
        Appended(Folder(tmp_path), "train.log", strict=False),
    )
    for file in (log, shared):
        file.write(b"1\n")
        file.flush()
        with (tmp_path / file.name).open("ab") as other:
            other.write(b"a person's note\n")
        file.write(b"2\n")
    shared.flush()
    assert (tmp_path / "train.log").read_bytes() == b"1\na person's note\n2\n"
    with pytest.raises(UserError, match="changed by another program"):
        log.flush()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"1\na person's note\n"


# --- reports --------------------------------------------------------------------------------------------


@pytest.fixture
def compare(ffn: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    del ffn  # it has changed the working directory

    def command(*arguments: str) -> object:
        return call(compare_main, "ffn-compare", monkeypatch, capsys, *arguments)

    return command  # type: ignore[return-value]


def sweep(tmp_path: Path) -> None:
    for optimizer in ("adam", "sgd"):
        for seed in range(3):
            write_run(tmp_path / "runs" / f"{optimizer}{seed}", f"optimizer={optimizer}", f"seed={seed}")


def test_a_persons_figures_and_tables_stay(compare: Command, tmp_path: Path) -> None:
    sweep(tmp_path)
    paper = tmp_path / "paper"
    for name in ("figures/architecture.png", "figures/curves-epochs.svg", "tables/summary.csv",
                 "tables/mine.tex", "report.html", "notes.md"):  # fmt: skip
        (paper / name).parent.mkdir(parents=True, exist_ok=True)
        (paper / name).write_text(f"mine: {name}")
    contents_before = bytes_below(paper)
    result = compare("runs=runs", "save=paper")
    assert result.code == 0, result.err
    assert "exists and was not written by ffn-bench: it is kept, and the new file is" in result.out
    assert "paper/report-2.html" in result.out
    assert {
        path: content for path, content in bytes_below(paper).items() if path in contents_before
    } == contents_before
    first = {p.relative_to(paper).as_posix() for p in files_below(paper)} - contents_before.keys()
    assert {
        "report-2.html",
        "tables/summary-2.csv",
        "figures/curves-epochs-2.svg",
        "comparison.json",
    } <= first

    # A second report takes the place of the first one, but for a picture that the person has retouched.
    (paper / "figures" / "finals.png").write_bytes(b"retouched")
    assert compare("runs=runs", "save=paper", "metric=loss/train").code == 0
    after = bytes_below(paper)
    assert {path: content for path, content in after.items() if path in contents_before} == contents_before
    assert after["figures/finals.png"] == b"retouched9"
    assert "report-3.html" not in after
    assert "loss" in str(after["report-2.html"])


def test_of_an_earlier_report_only_what_is_ours_goes(compare: Command, tmp_path: Path) -> None:
    sweep(tmp_path)
    assert compare("runs=runs", "save=paper", "tensorboard=true").code == 0
    paper = tmp_path / "paper"
    assert (paper / "figures" / "finals.png").exists()
    events = set((paper / "tensorboard").rglob("events*"))
    assert events
    (paper / "tensorboard" / "events.out.tfevents.1.mine.2").write_text("mine")
    assert compare("runs=runs", "save=paper").code == 0
    assert [p.name for p in (paper / "tensorboard").rglob("events*")] == ["events.out.tfevents.1.mine.2"]


LINKS = [
    ("report.html", "a link to a file"),
    ("figures", "a link to a folder"),
    ("tables", "a pipe"),
    ("figures/finals.png", "a link to nothing"),
    (MANIFEST, "a link to a file"),
]


@pytest.mark.parametrize(("name", "damage"), LINKS)
def test_no_link_in_a_report_is_followed(compare: Command, tmp_path: Path, name: str, damage: str) -> None:
    sweep(tmp_path)
    make_outside(tmp_path / "outside")
    (tmp_path / "paper" / "figures").mkdir(parents=True)
    (tmp_path / "paper" / "tables").mkdir()
    DAMAGES[damage](tmp_path / "paper" / name, tmp_path / "outside")
    before = bytes_below(tmp_path / "outside")
    result = compare("runs=runs", "save=paper", "tensorboard=true")
    assert bytes_below(tmp_path / "outside") == before
    followable = name in ("report.html", "figures/finals.png")
    assert result.code == (0 if followable else 4), result.err
    assert result.err.count("\n") == (0 if followable else 1)
    reading.read_identity(Folder(tmp_path / "runs" / "adam0"))  # and the runs are as they were


# --- files that a person has named ----------------------------------------------------------------------


def test_an_output_is_replaced_by_the_next_one_only(tmp_path: Path) -> None:
    """Files of a run or a report are ours, and still no output may replace them; nor they an output."""
    folder = Folder(tmp_path)
    folder.replace("run.json", b"a run")
    with pytest.raises(UserError, match="exists, and was not written by this command"):
        folder.write_output("run.json", [b"an output"])
    folder.write_output("p.csv", [b"first"])
    folder.write_output("p.csv", [b"sec", b"ond"])
    assert folder.put("p.csv", b"a report") == "p-2.csv"
    assert (tmp_path / "p.csv").read_bytes() == b"second"
    (tmp_path / "p.csv").write_bytes(b"changed")
    with pytest.raises(UserError, match="exists, and was"):
        folder.check_output("p.csv")


def test_what_comes_between_is_kept(tmp_path: Path) -> None:
    """A person puts a file there while an output is computed."""

    def pieces() -> Iterator[bytes]:
        yield b"ours"
        (tmp_path / "p.csv").write_bytes(b"theirs")

    with pytest.raises(UserError, match="exists, and was"):
        Folder(tmp_path).write_output("p.csv", pieces())
    assert (tmp_path / "p.csv").read_bytes() == b"theirs"
    assert sorted(p.name for p in tmp_path.iterdir()) == [MANIFEST, "p.csv"]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    def of_another() -> Iterator[bytes]:
        yield b"first"
        folder.write_output("other.csv", [b"whole"])  # looks for temporary files that nobody writes
        yield b"second"

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "unlink", lambda *_, **__: None)
        folder.write_output("p.csv", _killed())
    assert len(list(tmp_path.glob(".p.csv.*.tmp"))) == 1
    folder.write_output("p.csv", of_another())
    assert (tmp_path / "p.csv").read_bytes() == b"firstsecond"
    assert not list(tmp_path.glob(".*.tmp"))


def _killed() -> Iterator[bytes]:
    yield b"half"
    raise KeyboardInterrupt
