"""What a command meets outside of itself: its output, its signals, its limits, and text of anybody."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.text import Text

import ffn_bench
from conftest import Command
from ffn_bench import errors, plot_style, tags
from ffn_bench.command_line import console, run_view, sweep_view
from ffn_bench.command_line import tables as run_tables
from ffn_bench.compare import axes, command, read, study, tables
from ffn_bench.compare.statistics import Interval
from ffn_bench.data.rows import Array, Data, Split
from ffn_bench.errors import UserError, printable
from ffn_bench.landscape.figures import Trajectory
from ffn_bench.landscape.page import Page
from ffn_bench.run_folder import finding, writers
from ffn_bench.run_folder.files import Folder, to_json
from ffn_bench.run_folder.lock import Lock
from ffn_bench.run_folder.pictures import confusion_matrix, mistakes
from run_folders import write_run

COMMANDS = {
    "train": ["-m", "ffn_bench.train"],
    "lecture": ["-m", "ffn_bench.lecture.command"],
    "compare": ["-m", "ffn_bench.compare.command"],
    "race": ["-m", "ffn_bench.race.command"],
    "landscape": ["-m", "ffn_bench.landscape.command"],
    "predict": ["-m", "ffn_bench.predict.command"],
    "export": ["-m", "ffn_bench.export.command"],
}
SURFACE = ["surface=rosenbrock", "optimizers=[sgd]", "steps=3", "budget=1", "animation=false"]


def start(name: str, *arguments: str, shell: str = "", **options: Any) -> subprocess.Popen[str]:
    """A command as a process; `shell` is what is done before, or behind it after `{}`."""
    words = [sys.executable, *COMMANDS[name], *arguments]
    kinds: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    if shell:
        words = ["bash", "-c", shell.format('exec "$0" "$@"'), *words]
    return subprocess.Popen(words, text=True, errors="replace", **{**kinds, **options})


def done(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    process = start(name, *arguments, **options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def is_one_line(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


# --- output that cannot be written ----------------------------------------------------------------------


def test_a_reader_that_goes_away_harms_nothing(tmp_path: Path) -> None:
    process = start("train", "-m", "seed=1,2", "epochs=3", "name=x", cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr as file:
        assert (file.read(), process.wait(60)) == ("", 0)
    assert [summary(f)["status"] for f in tmp_path.glob("outputs/sweeps/x/*seed*")] == ["finished"] * 2


def test_a_full_disk_behind_standard_output_ends_no_training(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = done("train", "epochs=3", "name=x", cwd=tmp_path, stdout=full)
    is_one_line(result, 5, "standard output: cannot be written (no space left on device)")
    assert summary(tmp_path / "outputs" / "x")["status"] == "finished"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["name=x", "status=true"]])
def test_short_answers_into_a_full_disk_and_to_nobody(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        is_one_line(done("train", *arguments, cwd=tmp_path, stdout=full), 5, "standard output")
    read, write = os.pipe()
    os.close(read)
    result = done("train", *arguments, cwd=tmp_path, stdout=write)
    os.close(write)
    assert (result.stderr, result.returncode) == ("", 0)


def test_streams_that_are_closed(tmp_path: Path) -> None:
    """The next file that is opened would be standard output: what is printed must not land in it."""
    result = done("race", *SURFACE, "save=r", shell="{} <&- >&- 2>&-", cwd=tmp_path)
    assert result.returncode == 0
    assert json.loads((tmp_path / "r" / "race.json").read_text())


@pytest.mark.parametrize("surroundings", [{"PYTHONIOENCODING": "ascii"}, {"TERM": "dumb", "COLUMNS": "20"}])
def test_a_terminal_with_few_signs(tmp_path: Path, surroundings: dict[str, str]) -> None:
    environment = {**os.environ, **surroundings, "NO_COLOR": "1"}
    result = done("race", *SURFACE, "save=r", cwd=tmp_path, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "η" in result.stdout or ("eta" in result.stdout and result.stdout.isascii())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("how", ["{} > /dev/full", "{} | true", "{} >&-", "{} 2>&-", "{} 2>/dev/full"])
def test_every_command_with_every_output(tmp_path: Path, name: str, how: str) -> None:
    done("train", "-m", "seed=1,2", "epochs=3", "trajectory=true", "name=x", cwd=tmp_path)
    run = next(tmp_path.glob("outputs/sweeps/x/*seed*")).relative_to(tmp_path)
    arguments = {
        "train": ["epochs=2", "name=y"],
        "lecture": ["topic=rules", "save=l"],
        "compare": ["runs=outputs/sweeps/x"],
        "race": SURFACE,
        "landscape": [f"run={run}", "points=5"],
        "predict": [f"run={run}", "split=test", "out=p.csv"],
        "export": [f"run={run}", "to=model.onnx"],
    }[name]
    plain = done(name, *arguments, cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    before = {f.relative_to(tmp_path) for f in tmp_path.rglob("*.*")}
    for folder in ("outputs/y", "outputs/race", "l", "outputs/sweeps/x/compare", f"{run}/landscape"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    result = done(name, *arguments, shell=how, cwd=tmp_path)
    assert result.stderr.count("\n") <= 1, result.stderr
    assert result.returncode == (5 if how == "{} > /dev/full" else 0)

    def names(files: set[Path]) -> set[str]:
        return {re.sub(r"tfevents.*", "tfevents", str(f)) for f in files}

    assert names({f.relative_to(tmp_path) for f in tmp_path.rglob("*.*")}) == names(before)


# --- where it runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "compare"])
def test_a_working_folder_that_is_gone(tmp_path: Path, name: str) -> None:
    (tmp_path / "gone").mkdir()
    arguments = {"train": ["epochs=1"], "compare": ["runs=x"]}[name]
    result = done(name, *arguments, shell="rmdir $PWD; {}", cwd=tmp_path / "gone")
    is_one_line(result, 4, "working directory: has been deleted")


@pytest.mark.parametrize("limit", [40, 120, 600, 2000])
@pytest.mark.parametrize("what", ["train", "train with PyTorch", "compare"])
def test_an_address_space_that_is_too_small(tmp_path: Path, what: str, limit: int) -> None:
    """In MiB. What needs less than the limit does what it would do without."""
    arguments = {
        "train": ["train", "epochs=1", "name=x"],
        "train with PyTorch": ["train", "epochs=1", "name=x", "engine=torch"],
        "compare": ["compare", "runs=nothing"],
    }[what]
    result = done(*arguments, shell=f"ulimit -v {limit * 1024}; {{}}", cwd=tmp_path)
    if what == "train" and (limit >= 2000 or result.returncode == 0):
        assert (result.returncode, result.stderr) == (0, "")
        return
    if what == "compare" and (
        limit >= 600 or (limit == 120 and result.returncode == 4)
    ):  # just enough, or not
        is_one_line(result, 4, "nothing: does not exist")
    else:
        is_one_line(result, 5, f"memory: its limit of {limit:,} MiB is too low")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v", "d"])
def test_every_address_space(tmp_path: Path, kind: str) -> None:
    for limit in (16, 24, 48, 80, 100, 150, 200, 300, 450, 700, *range(1000, 6000, 250)):
        shell = f"ulimit -{kind} {limit * 1024}; {{}}"
        result = done("train", "epochs=1", f"name=x{limit}", shell=shell, cwd=tmp_path)
        if result.returncode:
            is_one_line(result, 5, "memory")


# --- signals --------------------------------------------------------------------------------------------


def has_started(process: subprocess.Popen[str]) -> bool:
    """Whether the command listens to signals: before, it is the interpreter that starts."""
    mask = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def signalled(
    number: signal.Signals, delay: float, name: str, *arguments: str, cwd: Path
) -> tuple[float, subprocess.CompletedProcess[str]]:
    """What becomes of a command that gets a signal so long after it has begun; and how long it took."""
    process = start(name, *arguments, cwd=cwd)
    while not has_started(process):
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    taken = time.monotonic() - started
    return taken, subprocess.CompletedProcess(arguments, process.returncode, out, err)


def check_signal(number: signal.Signals, process: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert process.returncode == 128 + number, process.stderr
    lines = ["interrupted"] if number == signal.SIGINT else []
    assert [line.partition(": ")[2] for line in process.stderr.splitlines()] == lines
    assert not [f for f in folder.rglob("*") if f.name.endswith(".tmp")]


SIGNALLED = {
    "train": ("epochs=100000",),
    "train -m": ("-m", "seed=range(3000)", "max_runs=4000"),
    "race": ("surface=rosenbrock", "save=r"),
    "lecture": ("save=l",),
}


@pytest.mark.parametrize(
    ("what", "number", "delay"),
    [
        ("train", signal.SIGINT, 0.0),
        ("train", signal.SIGTERM, 0.1),
        ("train", signal.SIGHUP, 0.3),
        ("train", signal.SIGINT, 0.6),
        ("train", signal.SIGINT, 1.0),
        ("train", signal.SIGTERM, 1.5),
        ("train -m", signal.SIGINT, 0.2),
        ("train -m", signal.SIGINT, 2.5),
        ("race", signal.SIGTERM, 0.4),
        ("race", signal.SIGINT, 1.8),
        ("lecture", signal.SIGINT, 0.8),
    ],
)
def test_a_signal_while_it_starts(tmp_path: Path, what: str, number: signal.Signals, delay: float) -> None:
    taken, process = signalled(number, delay, what.partition(" ")[0], *SIGNALLED[what], cwd=tmp_path)
    check_signal(number, process, tmp_path)
    assert taken < 2 or os.getloadavg()[0] > 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_library_is_imported(tmp_path: Path, number: signal.Signals) -> None:
    """Of a library that swallows what is raised in it."""
    (tmp_path / "hydra").mkdir()
    swallowing = "import time\ntry:\n    time.sleep(30)\nexcept BaseException:\n    pass\n"
    (tmp_path / "hydra" / "__init__.py").write_text(swallowing)
    folders = os.pathsep.join([str(tmp_path), str(Path(ffn_bench.__file__).parents[1])])
    process = start("train", "epochs=1", cwd=tmp_path, env={**os.environ, "PYTHONPATH": folders})
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    check_signal(number, subprocess.CompletedProcess([], process.returncode, "", err), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", SIGNALLED)
@pytest.mark.timeout(3600)
def test_a_signal_at_any_time(tmp_path: Path, what: str, record_property: Callable[..., None]) -> None:
    took = []
    for k, delay in enumerate(np.arange(0, 6, 0.05)):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[k % 3]
        folder = tmp_path / str(k)
        folder.mkdir()
        taken, process = signalled(number, delay, what.partition(" ")[0], *SIGNALLED[what], cwd=folder)
        if process.returncode == 0 and what != "train":
            break
        check_signal(number, process, folder)
        took.append(taken)
        shutil.rmtree(folder)
    record_property("seconds", f"median {statistics.median(took):.2f}, most {max(took):.2f}")
    assert max(took) < 2, what


TIDYING = """
import os, signal, time
from ffn_bench import process

class Fails:
    def __del__(self):
        raise ValueError("of a destructor")

@process.tidies
def writes():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    finally:
        Fails()
        print("tidied", flush=True)

process._state.is_command = True
process.listen()
try:
    writes()
finally:
    time.sleep(20)
"""


def test_what_tidies_up_is_let_do_so_and_nothing_else() -> None:
    """Quietly, and whatever hangs after that does not keep the process."""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", TIDYING], check=False, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (143, "tidied\n", "")
    assert time.monotonic() - started < 10


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds of a process that is alive."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_runs_are_put_away_in_time(tmp_path: Path) -> None:
    """A checkpoint for each of 400 runs side by side takes longer than a signal may wait.

    Its time is counted in CPU seconds, which busy neighbours do not lengthen.
    """
    many = ("seed=range(400)", "engine=batched")
    process = start("train", "-m", *many, "epochs=2000", "name=x", cwd=tmp_path)
    while len(list(tmp_path.glob("outputs/sweeps/x/*/metrics.jsonl"))) < 200:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = cpu_seconds_of(process.pid)
    _, err = process.communicate(timeout=60)
    check_signal(signal.SIGTERM, subprocess.CompletedProcess([], process.returncode, "", err), tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) - spent < 2.2


def test_below_nohup_a_hangup_is_not_heard(tmp_path: Path) -> None:
    process = start("train", "epochs=60", "name=x", shell="trap '' HUP; {}", cwd=tmp_path)
    while not has_started(process):
        time.sleep(0.002)
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert summary(tmp_path / "outputs" / "x")["status"] == "finished"


# --- a lock's loser -------------------------------------------------------------------------------------


def cpu_seconds(*words: str, cwd: Path) -> float:
    process = subprocess.Popen([sys.executable, *words], cwd=cwd, stdout=-3, stderr=-3)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("sweep", [False, True])
def test_the_loser_of_a_lock_stops_at_once(tmp_path: Path, sweep: bool) -> None:
    """Within a second of CPU time beyond its imports, which are not PyTorch."""
    lock = Lock(Folder(tmp_path / "outputs" / ("sweeps/x" if sweep else "x")))
    arguments = ["name=x", *(["-m", "seed=1,2"] if sweep else [])]
    try:
        is_one_line(done("train", *arguments, cwd=tmp_path), 4, "is in use by process")
        spent = min(cpu_seconds("-m", "ffn_bench.train", *arguments, cwd=tmp_path) for _ in range(2))
    finally:
        lock.release()
    imports = min(cpu_seconds("-c", "import ffn_bench.train, rich.progress", cwd=tmp_path) for _ in range(2))
    assert spent - imports < 1


# --- text of anybody ------------------------------------------------------------------------------------

NASTY = (
    "a\nb", "a\r\nb\n", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202eevil", "zero\u200bwidth", "\ud800",
    "\udcff.csv", "[red]markup[/red]", "[link=file:///etc]x[/link]", "$\\frac{", "$x$ $y$", "_hidden", "__",
    "<script>alert(1)</script>", "</style><b>", "]]>", "&lt;", "javascript:alert(1)", "[x](javascript:x)",
    "a|b", "`code`", "**bold**", "https://example.org", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)",
    "\t=1", "＝1", "\\input{/etc/passwd}", "^^5cinput", "100 % #1 & ~{}", "{{ 7*7 }}", "{% raw %}",
    "{0}", "%s", "\0", "../../etc", "a/b", "a b", "😀", "中文", "עברית", "e\u0301" * 20,
    "x" * 10_000, " ", "#0072b2", "..", "-",
)  # fmt: skip
anything = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\\$_{}<>&|`*=+-@\n\r\t\x1b[]()\u202e%#'\""),
    max_size=30,
)
generated = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def is_plain(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@generated
@given(anything)
def test_what_is_printable_is_one_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert line.encode().decode() == line
    assert text != line or text.isprintable()
    assert str(UserError(text, text, text)).isprintable()


def shown(name: str, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    """Everything that the console shows, with one name for all that has a name."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "300")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    end: dict[str, Any] = {"status": "failed", "reason": name, "final": {}, "best": None}
    end["task"] = "classification"
    end |= {"train_seconds": 1.0, "steps": 3, "monitor": None}
    view = run_view.RunView()
    view.end(end, Path(f"x{name}".replace("\0", "")))
    sweep = sweep_view.SweepView([(name, {name: name})], Path(f"x{name}"), heading="h")
    sweep.before({"done": 1})
    sweep._fact(name, name)
    sweep.warn(name)
    sweep.ended(0, end)
    sweep.closing(0, [name])
    run_tables.show_status([(name, name, end)], Path(f"x{name}"), name, listed=True)
    row = {"settings": {name: name}, "runs": 1, "bad": name}
    row |= dict.fromkeys(("score", "val", "test", "epoch", "seconds"), (0.5, math.nan))
    row |= {"tag": "accuracy/val", "primary": tags.SCORE}
    run_tables.show_leaderboard(console.make_console(), [row], [name], seeds=True)
    run_tables.show_choices(console.make_console(), [(name, name, ("accuracy/val", 0.5), name)], [name])
    run_tables.show_gains(console.make_console(), [(name, tags.SCORE, {"val": [0.1], "test": [0.1]})], 1)
    console.make_console().print(Text(name))
    console.make_console().print(name)
    return out.getvalue()


@settings(generated, max_examples=40)
@given(anything, st.booleans())
def test_nothing_reaches_a_terminal_but_text(name: str, terminal: bool) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        output = shown(name, monkeypatch, terminal)
    assert is_plain(re.sub(r"\x1b\[[0-9;]*m", "", output) if terminal else output)


def table_of(text: str) -> tables.Table:
    columns: list[tuple[str, Callable[[Any], str]]] = [
        (text, str),
        ("number", lambda v: f"{v:.3g}"),
        ("wide", lambda v: f"{v.estimate}"),
    ]
    rows: list[list[Any]] = [[text, -0.5, Interval(-1.0, -2.0, 3.0)], ["-0.5", 2, Interval(1.0, 0.0, 2.0)]]
    return tables.Table(text, columns, rows)


@generated
@given(anything)
def test_a_table_as_csv_has_no_formula_and_its_numbers(text: str) -> None:
    header, first, second = csv.reader(io.StringIO(table_of(text).csv()))
    assert first[0] in (printable(text), f"'{printable(text)}")
    for cell in (header[0], first[0]):
        assert not cell.startswith(errors.FORMULA) or math.isfinite(float(cell))
    assert [*map(float, first[1:])] == [-0.5, -1, -2, 3] and second[0] == "-0.5"


@generated
@given(anything)
def test_a_table_as_markdown_has_no_markup(text: str) -> None:
    lines = table_of(text).markdown().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4
        cell = re.sub(r"\\[\\`*_~|$#\]]", "", line)
        assert not re.search(r"[<>`*~$]|&(?!amp;|lt;|gt;|#8203;)|\]\(|https?:|@(?!&#8203;)", cell[1:-1])


@generated
@given(anything)
def test_a_table_as_latex_has_no_command(text: str) -> None:
    rows = [line for line in table_of(text).latex().splitlines() if line.endswith("\\\\")]
    assert len(rows) == 3
    for row in rows:
        cells = row.removesuffix("\\\\")
        assert not cells.lstrip().startswith(("[", "*"))
        rest = re.sub(r"\\text(backslash|asciitilde|asciicircum)\{\}|\\[&%$#_{}]|^ *\{\}", "", cells)
        rest = re.sub(r"\$(\\infty|-|\\cdot|<|>)\$", "", rest)
        assert rest.count("&") == 2 and not re.search(r"[\\%$#_{}~^]", rest)


class Elements(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[tuple[str, str | None]] = set()
        self.code: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.names |= {(tag, None), *((tag, key) for key, _ in attrs)}

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.code.append(data)


_reports: dict[tuple[str, ...], Elements] = {}


def report_of(root: Path, names: tuple[str, ...]) -> Elements:
    """The report of competitors of these names, on two workloads; figures and tables are looked at, too."""
    if names in _reports:
        return _reports[names]
    for k, name in enumerate(names):
        for data in ("digits", names[0]):
            for seed in range(2):
                keys: dict[str, Any] = {"optimizer__name": name, "data__name": data}
                folder = root / "runs" / f"{k}{data == 'digits'}{seed}"
                write_run(folder, val=(0.1, 0.8, 0.7 + k / 100), seed=seed, **keys)
    runs, _ = read.read_all(finding.find([str(root / "runs")]))
    result = study.analyse(runs, axes.find(runs, workloads=["data"]))
    result.notes.extend(names)
    command.write(result, Folder(root / "report"), console.make_console(), f"ffn-compare {names[0]}", False)
    page = (root / "report" / "report.html").read_text()
    assert is_plain(re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    assert not any(
        "\x1b" in f.read_text() or "\u202e" in f.read_text() for f in (root / "report" / "tables").iterdir()
    )
    for svg in (root / "report" / "figures").glob("*.svg"):
        ElementTree.fromstring(svg.read_bytes())
    _reports[names] = Elements(page)
    return _reports[names]


@pytest.mark.parametrize("first", range(3))
def test_a_report_is_of_the_same_elements_whatever_is_compared(tmp_path: Path, first: int) -> None:
    names = tuple(name for name in NASTY if name.strip())[first::3]
    harmless = report_of(tmp_path / "harmless", tuple(f"name {k}" for k in range(len(names))))
    nasty = report_of(tmp_path / "nasty", names)
    assert nasty.names == harmless.names
    assert nasty.code == harmless.code


@settings(generated, max_examples=30)
@given(anything)
def test_a_figure_takes_any_name(text: str) -> None:
    """And a name that begins with an underscore, or is empty, has its line in the legend."""
    figure = Figure(layout="constrained")
    plot = figure.subplots()
    plot.plot([1, 2], label=plot_style.literal(text))
    plot.plot([2, 1], label="other")
    plot.set_title(plot_style.literal(text))
    plot.set_xticks([0, 1], [plot_style.literal(text)] * 2)
    legend = plot.legend()
    assert len(legend.get_texts()) == 2
    _, svg = plot_style.save(figure, f"ffn-race {text}")
    words = [
        "".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    if name := printable(text).strip()[:59]:
        assert sum(name in word.replace("\xa0", " ") for word in words) >= 4


@generated
@given(st.lists(anything, min_size=2, max_size=6, unique=True))
@example(["a/b", "a b", "a_b", "A_B", "a_b-2"])
def test_every_name_has_a_file_of_its_own(names: list[str]) -> None:
    slugs = plot_style.slugs(names)
    assert len({slug.lower() for slug in slugs.values()}) == len(names)
    assert all(re.fullmatch(r"[\w.=-]*", s) and len(s.encode()) <= 130 for s in slugs.values())


def pictures(labels: list[str]) -> Data[Array]:
    """Four-pixel pictures of as many classes."""
    y = np.arange(len(labels))
    split = Split(np.random.default_rng(0).random((len(labels), 4)), y)
    one, zero = np.ones(1), np.zeros(1)
    return Data(
        name="x",
        train=split,
        val=split,
        test=split,
        classes=tuple(labels),
        image_shape=(2, 2),
        mean=zero,
        std=one,
        sha256="",
        chance={},
        n_features=4,
    )


@settings(generated, max_examples=30)
@given(st.lists(anything, min_size=2, max_size=5))
def test_pictures_of_a_run_take_any_label(labels: list[str]) -> None:
    data = pictures(labels)
    assert confusion_matrix(np.eye(len(labels), dtype=np.int64), labels, "test")
    rows = np.arange(len(labels))
    png = mistakes(data, rows, rows, np.linspace(1, 0, len(labels)))
    assert int.from_bytes(png[16:20], "big") < 3000


@settings(generated, max_examples=20)
@given(anything)
def test_an_interactive_page_is_of_the_same_elements(text: str) -> None:
    def elements(text: str) -> Elements:
        page = Page(text)
        line = torch.linspace(1, 2, 3)
        page.surface(text, (line, line), torch.ones(3, 3), text)
        trajectory = Trajectory(text, line, torch.ones(3, 2), line, line)
        page.plane(text, (line, line), torch.ones(3, 3), [trajectory], text)
        rendered = page.render(text)
        assert rendered.encode()
        return Elements(re.sub(r"<script>/\*\*.*?</script>", "", rendered, count=1, flags=re.S))

    assert elements(text).names == elements("harmless").names


@generated
@given(anything)
def test_a_log_takes_any_message(text: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        log = writers.TextLog(folder)
        log.note("INFO", text)
        log.file.flush()
        assert is_plain((Path(temporary) / "train.log").read_text())
        folder.put("x.json", to_json({"text": text}))
        assert folder.read_json("x.json") == {"text": text}


def write_labels(path: Path, labels: list[str]) -> Path:
    """A table with as many rows of each class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["f1", "f2", "y"])
        rows.writerows([k, row % 7, label] for row in range(24) for k, label in enumerate(labels))
    return path


def test_labels_of_a_table_are_text(ffn: Command, tmp_path: Path) -> None:
    """One run, a sweep, and the next data set; a label with a line feed ended them all."""
    labels = [t for t in NASTY if t.strip() and "\0" not in t and t.isascii() and len(t) < 100]
    write_labels(tmp_path / "t.csv", sorted({t.strip() for t in labels})[:20])
    table = ("data=csv", "data.path=t.csv", "data.target=y", "epochs=2")
    assert ffn(*table, "name=one").code == 0
    result = ffn("-m", *table, "seed=1,2", "name=many")
    assert result.code == 0, result.err
    assert is_plain(result.out)
    assert ffn("-m", "data=moons,csv", *table[1:], "name=both").code in (0, 2)  # moons has no such keys


def test_a_class_that_is_rare_is_named_in_one_line(ffn: Command, tmp_path: Path) -> None:
    path = write_labels(tmp_path / "t.csv", ["a", "b"])
    path.write_text(path.read_text() + '1,2,"\x1b[31m\nx"\n')
    result = ffn("data=csv", "data.path=t.csv", "data.target=y", "epochs=2")
    assert result.code == 3
    assert result.err.count("\n") == 1 and is_plain(result.err)


def test_a_folder_whose_name_is_not_utf_8(ffn: Command, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    os.chdir(folder)
    result = ffn("epochs=1", "name=x")
    assert result.code == 4
    assert "\\udcff" in result.err and result.err.count("\n") == 1
