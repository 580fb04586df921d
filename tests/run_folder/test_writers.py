"""What is written of a measurement: metrics.jsonl reads back to the last bit, train.log a line an epoch."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ffn_bench.engine.metrics import Measurement
from ffn_bench.run_folder import writers
from ffn_bench.run_folder.files import Folder

TAGS = ("loss/train", "lr", "grad_norm", "accuracy/test")
numbers = st.floats() | st.sampled_from([1e16, 1e22, 1e-5, 1e-7, 5e-324, -0.0, 2.0**53 + 2, 0.1])


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.dictionaries(st.sampled_from(TAGS), numbers)), max_size=9)
)
@example(
    [(0, {"loss/train": math.nan, "lr": math.inf, "grad_norm": -math.inf, "accuracy/test": np.float64(0.1)})]
)
def test_metrics_read_back_to_the_last_bit(lines: list[tuple[int, dict[str, float]]]) -> None:
    """By Python's reader: keys in order, numbers with all their bits, those that are not finite as null."""
    with tempfile.TemporaryDirectory() as temporary:
        writer = writers.JsonLines(Folder(Path(temporary)))
        for epoch, (step, values) in enumerate(lines):
            writer.write(Measurement(step, epoch, 1.23456789, values))
        writer.file.write(b"")
        writer.file.flush()
        content = (Path(temporary) / "metrics.jsonl").read_bytes()
    assert content.count(b"\n") == len(lines) and content.endswith(b"\n" if lines else b"")
    for epoch, (text, (step, values)) in enumerate(zip(content.splitlines(), lines, strict=True)):
        line = json.loads(text)
        assert list(line) == ["step", "epoch", "time", "train_seconds", *values]
        assert (line["step"], line["epoch"], line["train_seconds"]) == (step, epoch, 1.234568)
        assert type(line["step"]) is int and abs(line["time"] - time.time()) < 60
        assert line["time"] == round(line["time"], 3)
        for tag, value in values.items():
            if math.isfinite(value):
                assert type(line[tag]) is float and line[tag].hex() == float(value).hex()
            else:
                assert line[tag] is None


def test_the_log_has_a_line_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With local time to the millisecond, cut off, also where two lines are of one second."""
    log = writers.TextLog(Folder(tmp_path))
    for epoch, now in enumerate((1.7e9 + 0.9999, 1.7e9 + 1.0, 1.7e9 + 1.0625)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        log.write(Measurement(epoch * 40, epoch, 0.0, {"lr": 0.005}))
        log.write(Measurement(epoch * 40, epoch, 0.0, {"loss/val": 1 / 3, "lr": 1e-7}, ends_epoch=True))
    log.file.flush()
    clock = [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        for second in (1_700_000_000, 1_700_000_001)
    ]
    stamps = [f"{clock[0]},999", f"{clock[1]},000", f"{clock[1]},062"]
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert lines == [
        f"{stamp} INFO epoch {epoch} step {epoch * 40} loss/val 0.333333 lr 1e-07"
        for epoch, stamp in enumerate(stamps)
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in lines)
