"""A digest of what small runs come to, to see whether a change moves a number.

    python scripts/digest.py                      print it
    python scripts/digest.py --write before.json  and keep it
    python scripts/digest.py --check before.json  exit with 1 where a run differs, and name it

Every optimizer, schedule, activation and way to train: single, in sweeps, by hand-written gradients, killed
and resumed, diverging. A digest is of every metric at every step (times apart) and of the final weights, to
the last bit. Those of the torch engine hold for one machine with one version of PyTorch; those of the
compiled engine for every processor with AVX2, and stand in tests/engine/digests.json:

    python scripts/digest.py --engine compiled --write tests/engine/digests.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from ffn_bench.tags import SPLIT_SCORES

CONF = Path(__file__).parents[1] / "conf"
SMALL = ("data=digits", "epochs=2")
"""No random numbers or functions of other packages are in these data: only sums and quotients."""


def commands() -> Iterator[tuple[str, ...]]:
    """Command lines of single runs."""
    for group in ("optimizer", "schedule"):
        for path in sorted((CONF / group).rglob("*.yaml")):
            option = path.relative_to(CONF / group).with_suffix("").as_posix()
            if option == "torch":
                option = "torch optimizer.name=Rprop"
            yield (*SMALL, *f"{group}={option}".split())
    for activation in ("sigmoid", "tanh", "gelu", "silu", "softplus", "leaky_relu"):
        yield (*SMALL, f"model.activation={activation}")
    for extra in (
        "l2=0.01",
        "batch_size=full",
        "drop_last=true",
        "dtype=float64",
        "batch_size=1",
        "log_every=3",
    ):
        yield (*SMALL, extra)
    yield (*SMALL, "model=mlp", "model.depth=3")
    yield (*SMALL, "model=linear")
    yield (*SMALL, "init_seed=1", "order_seed=2", "l2=0.001", "trajectory=true")
    for optimizer in ("sgd", "adam", "lecture/adam"):
        yield (*SMALL, f"optimizer={optimizer}", "gradient=manual")
    yield (*SMALL, "optimizer=sgd", "lr=1e20")
    yield ("data=digits", "epochs=60", "patience=2")
    yield ("data=digits", "epochs=60", "patience=3", "monitor=loss/val", "min_delta=0.01", "log_every=7")


SWEEPS = (
    ("optimizer=sgd,momentum,nesterov,adagrad,adadelta,rmsprop,adam,adamw,nadam,adamax,radam",),
    ("schedule=constant,cosine,inverse_time,step,warmup_cosine", "optimizer=adam", "seed=1,2"),
    ("optimizer=lecture/adam,lecture/momentum", "l2=0,0.01", "epochs=2,3"),
    ("optimizer=sgd", "lr=0.1,1e20", "seed=0,1"),
    ("batch_size=full,7", "dtype=float64"),
    ("epochs=60", "patience=2", "seed=0,1,2"),
)


class Refused(Exception):
    """An engine that cannot train a run."""


def train(*arguments: str) -> None:
    """Run `ffn-train` in this process."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="ffn-train")
    main, sys.argv = entry.load(), ["ffn-train", *arguments]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as e:
            if "engine: compiled cannot train" in printed.getvalue():
                raise Refused from e
            if e.code not in (0, None, 3):
                sys.exit(f"{' '.join(arguments)}: {printed.getvalue()}")


def kill_and_resume(folder: Path, *arguments: str) -> None:
    """Kill a run in the middle, then train it to its end."""
    line = [str(Path(sys.executable).with_name("ffn-train")), *arguments, f"hydra.run.dir={folder}"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (folder / "summary.json").exists():
        sys.exit("the run had ended before it was killed")
    train(*arguments, f"hydra.run.dir={folder}")


def kept_of(values: dict[str, Any]) -> dict[str, Any]:
    """What was measured, without times, and without scores of a split's predictions together: these take
    NumPy's exponentials, which are not the same to the last bit on every processor."""
    own = {score.tag(split) for score in SPLIT_SCORES for split in score.splits}
    return {key: value for key, value in values.items() if key not in ("time", "train_seconds", *own)}


def digest(folder: Path) -> str:
    """SHA-256 of what a run left, without times and paths."""
    sha256 = hashlib.sha256()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        sha256.update(json.dumps(kept_of(json.loads(line))).encode())
    summary = json.loads((folder / "summary.json").read_text())
    kept = ("status", "reason", "steps", "epochs", "final", "best")
    summary |= {at: summary[at] and kept_of(summary[at]) for at in ("final", "best")}
    sha256.update(json.dumps({key: summary[key] for key in kept}).encode())
    for path in sorted((folder / "checkpoint").glob("*.safetensors"))[-1:]:
        for name, values in sorted(load_file(path).items()):
            # Not of losses that the next log point would have taken, nor of what earlier releases had not.
            if not name.startswith(("window", "best/")):
                sha256.update(name.encode() + values.tobytes())
    if summary["reason"].startswith("no improvement"):
        for name, values in sorted(load_file(folder / "best.safetensors").items()):
            sha256.update(name.encode() + values.tobytes())
    return sha256.hexdigest()[:16]


def digests(engine: str) -> Iterator[tuple[str, str]]:
    """Names of runs with their digests, trained by an engine."""
    by = f"engine={engine}"
    for number, arguments in enumerate(commands()):
        folder = Path("single") / str(number)
        with contextlib.suppress(Refused):
            train(*arguments, by, f"hydra.run.dir={folder}")
            yield " ".join(arguments), digest(folder)
    epochs = 2000 if engine == "compiled" else 60
    arguments = ("data=digits", f"epochs={epochs}", "log_every=500", "checkpoint_seconds=0.05")
    folder = Path("killed")
    kill_and_resume(folder, *arguments, by)
    yield " ".join((*arguments, "killed and resumed")), digest(folder)
    for which, sweep in enumerate(SWEEPS):
        train("-m", *SMALL, *sweep, by, f"name=sweep{which}")
        for inner in sorted(p.parent for p in (Path("outputs/sweeps") / f"sweep{which}").rglob("run.json")):
            yield f"sweep {which}: {inner.name}", digest(inner)


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="where to keep the digests")
    parser.add_argument("--check", type=Path, help="digests of before")
    parser.add_argument("--engine", default="torch", choices=["torch", "compiled", "batched"])
    given = parser.parse_args()
    before = json.loads(given.check.read_text()) if given.check else {}
    keep = given.write.resolve() if given.write else None
    results, home = {}, Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, value in digests(given.engine):
            results[name] = value
            print(value, name, "" if not before or before.get(name) == value else "  DIFFERS", flush=True)
        os.chdir(home)
    if keep:
        keep.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(bool(before) and before != results)


if __name__ == "__main__":
    main()
