"""The yardstick in C: `yardsticks/native.c`, compiled for the shapes of a work."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.work import Epoch, Work

SOURCE = Path(__file__).parents[1] / "yardsticks" / "native.c"
FLAGS = ("-O3", "-march=native", "-ffast-math")


def compiler() -> str | None:
    """A C compiler's path, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def native(work: Work, epochs: int = 50) -> Epoch:
    """The program on one core, `epochs` of them a call: it starts again each time, outside its own clock."""
    folder = tempfile.TemporaryDirectory(prefix="ffn-bench-native-")
    program, gcc = str(Path(folder.name) / "native"), compiler()
    assert gcc is not None
    shapes = {
        "WIDTHS": ",".join(map(str, work.widths)), "LAYERS": len(work.layers), "WIDEST": max(work.widths),
        "BATCH": work.batch_size, "ROWS": work.rows,
    }  # fmt: skip
    defined = [f"-D{name}={value}" for name, value in shapes.items()]
    subprocess.run([gcc, *FLAGS, *defined, "-o", program, str(SOURCE), "-lm"], check=True)

    def epoch(_: object = folder) -> tuple[int, float]:  # the folder lives as long as this function
        output = subprocess.run([program, str(epochs)], check=True, capture_output=True, text=True).stdout
        steps, seconds = output.split()
        return int(steps), float(seconds)

    return epoch
