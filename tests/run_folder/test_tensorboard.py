"""TensorBoard itself, over a sweep: its JSON is what the runs measured, and its pages open in a browser."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ffn_bench.tags import SPLIT_SCORES
from run_folder.test_folders import FFN_TRAIN, lines_of

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tb")
    subprocess.run(
        [FFN_TRAIN, "-m", "name=s", "optimizer=sgd,rmsprop,adam", "epochs=3"],
        cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return folder / "outputs" / "sweeps" / "s"


@pytest.fixture(scope="module")
def server(sweep: Path) -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(sweep), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--load_fast=false", "--reload_interval=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if len(get(address, "/data/runs")) == 3:
                    break
            except OSError:
                pass
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def get(address: str, path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
    url = f"{address}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def test_runs_and_scalars_are_exactly_the_sweeps(server: str, sweep: Path) -> None:
    folders = {p.name: p for p in sweep.iterdir() if p.is_dir()}
    assert sorted(get(server, "/data/runs")) == sorted(folders)
    tags = get(server, "/data/plugin/scalars/tags")
    assert sorted(tags) == sorted(folders)
    for name, folder in folders.items():
        lines = lines_of(folder)
        for tag in tags[name]:
            shown = [
                (step, value)
                for _, step, value in get(server, "/data/plugin/scalars/scalars", run=name, tag=tag)
            ]
            truth = [(line["step"], line[tag]) for line in lines if tag in line]
            assert [s for s, _ in shown] == [s for s, _ in truth]
            assert [v for _, v in shown] == pytest.approx([v for _, v in truth], rel=1e-6)
        assert set(tags[name]) == {t for line in lines for t in line} - {
            "step",
            "epoch",
            "time",
            "train_seconds",
        }


def test_hparams_are_three_sessions_with_their_final_metrics(server: str, sweep: Path) -> None:
    experiment = get(server, "/data/plugin/hparams/experiment", body={"experimentName": ""})
    columns = [h["name"] for h in experiment["hparamInfos"]]
    assert {"optimizer.name", "lr", "optimizer.betas", "optimizer.momentum", "seed"} <= set(columns)
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"],
        "colParams": [{"metric": m["name"]} for m in experiment["metricInfos"]],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = get(server, "/data/plugin/hparams/session_groups", body=request)["sessionGroups"]
    assert len(groups) == 3
    seen = {}
    for group in groups:
        (session,) = group["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        folder = sweep / group["name"]
        final = json.loads((folder / "summary.json").read_text())["final"]
        values = {m["name"]["tag"]: m["value"] for m in group["metricValues"]}
        own = {score.tag(split) for score in SPLIT_SCORES for split in score.splits}
        known = {"accuracy/test", "accuracy/val", "loss/test", "loss/val", "loss/train"}
        assert set(values) == known | own
        for tag, value in values.items():
            assert value == pytest.approx(final[tag], rel=1e-6)
        assert group["hparams"]["lr"] == 0.005
        seen[group["hparams"]["optimizer.name"]] = group["name"]
    assert sorted(seen) == ["adam", "rmsprop", "sgd"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pages_open_in_a_browser(server: str, sweep: Path) -> None:
    from playwright.sync_api import sync_playwright

    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        faults: list[str] = []
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.goto(f"{server}/#timeseries")
        page.wait_for_selector("text=accuracy/val", timeout=60_000)
        for folder in sweep.iterdir():
            if folder.is_dir():
                page.wait_for_selector(f"text={folder.name}", timeout=20_000)
        page.goto(f"{server}/#hparams")
        page.wait_for_selector("text=optimizer.name", timeout=60_000)
        for name in ("adam", "rmsprop", "sgd"):
            page.locator(rf"text=/^\s*{name}\s*$/ >> visible=true").first.wait_for(timeout=20_000)
        assert faults == []
        browser.close()
