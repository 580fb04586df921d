"""Processes that programs live in: libraries do not disturb each other, and only one works at a time.

A home starts once and keeps its programs ready, so that nothing is compiled or imported inside the clock.
It reads one JSON line for each request and answers with one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.work import Epoch, Work

SCRIPTS = Path(__file__).parents[1]
HUSH_SECONDS = 0.05
"""Between two programs: until the threads of the first have gone to sleep."""
VISIT_SECONDS = 0.25
"""That a program is timed at least, each round: epochs are repeated until then."""

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "compiled": {},
    "torch engine": {},
    "batched": {},
    "PyTorch": {},
    "Lightning": {},
    "JAX": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    "scikit-learn": {},
    "BLAS": dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
    "C": {},
}
"""Every home, and what is set in its environment."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What trains: `function(work, **options)` of `benchmarks.module` gives its epoch, in a home."""

    name: str
    home: str
    function: str
    """As `module.function`."""
    options: tuple[tuple[str, Any], ...] = ()
    runs: int = 1
    """That it trains."""


def program(name: str, home: str, function: str, **options: Any) -> Program:
    """A `Program`; its `runs` are those of its options."""
    return Program(name, home, function, tuple(options.items()), options.get("runs", 1))


class Home:
    """A process, seen from outside."""

    def __init__(self, name: str) -> None:
        environment = {**os.environ, **ENVIRONMENTS[name]}
        paths = [str(SCRIPTS), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.homes"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, function: str, *arguments: Any) -> Any:
        """What the process answers. Raises `RuntimeError` with its traceback where it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        plain = [dataclasses.asdict(a) if dataclasses.is_dataclass(a) else a for a in arguments]  # type: ignore[arg-type]
        self._process.stdin.write(json.dumps([request, function, plain]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{function}: its process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Homes:
    """All homes that are open. A context manager, which closes them."""

    def __init__(self) -> None:
        self._open: dict[str, Home] = {}

    def __enter__(self) -> Homes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        for home in self._open.values():
            home.close()

    def call(self, home: str, function: str, *arguments: Any) -> Any:
        """`function(*arguments)` in a home; a `Work` comes first, if at all."""
        return self._home(home).ask("call", function, *arguments)

    def visit(self, one: Program, work: Work) -> float:
        """Model-steps per second of a program now."""
        time.sleep(HUSH_SECONDS)
        steps, seconds = self._home(one.home).ask("visit", one.function, work, dict(one.options))
        return float(steps / seconds)

    def _home(self, name: str) -> Home:
        if name not in self._open:
            self._open[name] = Home(name)
        return self._open[name]


# --- within the process -------------------------------------------------------------------------------------


def _function(name: str) -> Any:
    module, function = name.split(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)


@functools.cache
def _epoch(function: str, work: Work, options: tuple[tuple[str, Any], ...]) -> Epoch:
    epoch: Epoch = _function(function)(work, **dict(options))
    epoch()  # what it compiles
    return epoch


def _work(plain: dict[str, Any]) -> Work:
    return Work(**{**plain, "widths": tuple(plain["widths"])})


def _answer(request: str, function: str, arguments: list[Any]) -> Any:
    if request == "call":
        return _function(function)(*(_work(a) if isinstance(a, dict) else a for a in arguments))
    plain, options = arguments
    epoch, steps, seconds = _epoch(function, _work(plain), tuple(options.items())), 0, 0.0
    while seconds < VISIT_SECONDS:
        some, took = epoch()
        steps, seconds = steps + some, seconds + took
    return steps, seconds


def _serve() -> None:
    """Answer until standard input ends. What programs print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = {"result": _answer(*json.loads(line))}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
