"""Predictions through pipes: a reader that goes away, a full disk, an encoding of few signs, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import files_below
from trained_runs import MOONS, train

COMMAND = [sys.executable, "-m", "ffn_bench.predict.command"]
ROWS = b"x0,x1\n" + b"".join(b"%d.500000000,%d\n" % (k % 7, k % 3) for k in range(350_000))

FEW = ROWS[: ROWS.index(b"\n", 1000) + 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("streams") / "x", *MOONS)


def test_a_reader_that_goes_away_ends_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    command = [*COMMAND, f"run={run}", f"data.path={tmp_path / 'rows.csv'}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"prediction,probability_upper,probability_lower\n"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_a_full_disk_is_one_line(run: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, f"run={run}", "data.path=-"],
            cwd=tmp_path, check=False, input=FEW, stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 5 and done.stderr.count(b"\n") == 1
    assert b": error: standard output: cannot be written (no space left on device)" in done.stderr


@pytest.mark.parametrize("given", [[], ["out=-"]])
def test_a_closed_output_is_one_line(run: Path, tmp_path: Path, given: list[str]) -> None:
    command = ["bash", "-c", '"$@" >&-', "", *COMMAND, f"run={run}", "data.path=-", *given]
    done = subprocess.run(command, cwd=tmp_path, check=False, input=FEW, capture_output=True)
    assert done.returncode == 5 and done.stderr.count(b"\n") == 1
    assert b": error: standard output: is closed; open it, or name a file" in done.stderr
    assert files_below(tmp_path) == []


def test_text_is_utf_8_whatever_the_terminal_has(tmp_path: Path) -> None:
    """Predictions are data: no sign of a class may become another one."""
    rows = [f"{k / 10},{'→ σ' if k % 2 else 'η'}" for k in range(100)]
    (tmp_path / "rows.csv").write_text("\n".join(["größe,y", *rows]), encoding="utf-8")
    table = f"data.path={tmp_path / 'rows.csv'}"
    train(tmp_path / "x", "data=csv", table, "data.target=y", "name=x", "epochs=1")
    done = subprocess.run(
        [*COMMAND, "run=x", table],
        cwd=tmp_path, check=False, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "prediction,probability_η,probability_→ σ\n" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_a_file_is_written(run: Path, tmp_path: Path, number: signal.Signals) -> None:
    """It leaves nothing; a kill leaves what the next command removes."""
    command = [*COMMAND, f"run={run}", "data.path=-", "out=p.csv"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(ROWS)
        process.stdin.flush()
        latest = time.monotonic() + 60
        while not list(tmp_path.glob(".p.csv.*.tmp")) and time.monotonic() < latest:
            time.sleep(0.01)
        time.sleep(0.5)  # it waits for more
        process.send_signal(number)
        status = process.wait(20)
        lines = process.stderr.read()
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    assert lines.endswith(b": interrupted\n") if number == signal.SIGINT else lines == b""
    left = {path.name for path in files_below(tmp_path)} - {".ffn-bench.jsonl"}
    assert not left or number == signal.SIGKILL
    (tmp_path / "rows.csv").write_bytes(FEW)
    done = subprocess.run(
        [*COMMAND, f"run={run}", "data.path=rows.csv", "out=p.csv"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in files_below(tmp_path)} == {".ffn-bench.jsonl", "rows.csv", "p.csv"}
