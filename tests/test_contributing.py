"""The walk-throughs of CONTRIBUTING.md, as a stranger would follow them: diffs apply, commands use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FILES = {"data set": 2, "surface": 1, "measured quantity": 1, "update rule": 2, "activation": 1, "loss": 2}
"""Files that each takes, tests and docs apart."""


class Walkthrough(NamedTuple):
    """A section `## To add a …`: its diff, and the command at its end."""

    diff: str
    command: str

    def files(self) -> list[str]:
        return re.findall(r"^\+\+\+ b/(.+)$", self.diff, re.MULTILINE)


def walkthroughs() -> dict[str, Walkthrough]:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = re.findall(r"^## To add an? (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return {
        name: Walkthrough(
            "".join(re.findall(r"^```diff\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)),
            re.findall(r"^    (ffn-.+)$", body, re.MULTILINE)[-1],
        )
        for name, body in sections
    }


ALL = walkthroughs()


def test_each_takes_no_more_files_than_it_must() -> None:
    assert {name: len(one.files()) for name, one in ALL.items()} == FILES


def apply(diff: str, folder: Path, *options: str) -> None:
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # not of a checkout around it
    command = ["git", "apply", *options, "-"]
    subprocess.run(command, cwd=folder, input=diff, env=environment, check=True, text=True, timeout=30)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all diffs, and `outputs/` of all their commands, one process for all."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name)
    for one in ALL.values():
        apply(one.diff, copy, "--check")  # each by itself
    for one in ALL.values():
        apply(one.diff, copy)
    code = f"""
import importlib, shlex, sys
from pathlib import Path
# Hydra would load the launchers of an installed checkout, too.
others = (path for path in sys.path if not (Path(path) / "hydra_plugins/ffn_bench_launcher").exists())
sys.path[:] = [{str(copy / "src")!r}, *others]
sys.modules.pop("hydra_plugins", None)
import ffn_bench
assert ffn_bench.__file__.startswith({str(copy)!r}), ffn_bench.__file__
for command in {[one.command for one in ALL.values()]!r}:
    sys.argv = shlex.split(command)
    module = "train" if sys.argv[0] == "ffn-train" else sys.argv[0].removeprefix("ffn-") + ".command"
    try:
        importlib.import_module("ffn_bench." + module).main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, check=True, timeout=200)
    return copy


@pytest.mark.parametrize("name", ["data set", "update rule", "activation"])
def test_the_command_trains_with_it(changed: Path, name: str) -> None:
    setting, folder = re.findall(r"(?:^ffn-train |name=)(\S+)", ALL[name].command)
    run = changed / "outputs" / folder
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["final"]["loss/train"] < 1.0  # chance is ln 3 or ln 10
    key, _, value = setting.partition("=")
    config = json.loads((run / "run.json").read_text())["config"]
    assert value in (config.get(key), config.get(f"{key}.name"))


def test_the_command_draws_the_surface(changed: Path) -> None:
    words = ALL["surface"].command.split()
    save = next(word.removeprefix("save=") for word in words if word.startswith("save="))
    ends = json.loads((changed / save / "race.json").read_text())
    assert "booth" in json.dumps(ends)
    assert (changed / save / "race.png").stat().st_size > 10_000


def test_the_command_measures_the_quantity(changed: Path) -> None:
    name = ALL["measured quantity"].command.partition("name=")[2]
    final = json.loads((changed / "outputs" / name / "summary.json").read_text())["final"]
    assert all(0 < final[f"brier/{split}"] < 0.9 for split in ("train", "val", "test"))  # 0.9 is chance
