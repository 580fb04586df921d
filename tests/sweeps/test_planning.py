"""The runs of a sweep: composed as Hydra would compose each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conftest import Command
from ffn_bench.sweeps import planning

SWEEPS = {
    "values": ["lr=0.1,0.2", "seed=range(0,3)"],
    "a value and one that all share": ["lr=0.1,0.2", "epochs=3"],
    "values in groups": ["optimizer.betas=[0.5,0.9],[0.6,0.9]", "model.hidden=[3],[4,5]", "l2=0"],
    "files that all share": ["optimizer=sgd", "data=moons", "optimizer.momentum=0.5,0.9"],
    "files that differ": ["optimizer=sgd,adam", "lr=0.1"],
    "an experiment": ["+experiment=lecture", "seed=0,1"],
    "keys that are new": ["optimizer=torch", "optimizer.name=Rprop", "+optimizer.options.lr_decay=1,2"],
    "a network": ["model=mlp", "model.depth=1,2"],
    "null": ["init_seed=null,1"],
    "Hydra's own": ["hydra.job.name=x", "seed=0,1"],
}  # fmt: skip


@pytest.fixture
def planner_of(ffn: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls something with the planner of a command line, and its jobs, before it plans."""

    def call(arguments: list[str], then: Callable[[Any, list[list[str]]], None]) -> None:
        class Planner(planning.Planner):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                parser = OverridesParser.create(config_loader=self.loader)
                task: Any = OmegaConf.to_container(self.master.hydra.overrides.task)
                then(self, planning.jobs_of(parser.parse_overrides(task), 100))

        monkeypatch.setattr(planning, "Planner", Planner)
        ffn("-m", *arguments, "status=true", "name=x")

    return call


@pytest.mark.parametrize("name", SWEEPS)
def test_a_run_of_a_sweep_is_what_hydra_composes(
    planner_of: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    compared: list[list[str]] = []

    def then(planner: Any, jobs: list[list[str]]) -> None:
        for number, job in enumerate(jobs):
            expected = planner.loader.load_sweep_config(planner.master, job)
            expected.hydra.job.id = expected.hydra.job.num = number
            assert planner.compose(job, number) == expected
            compared.append(job)

    planner_of(SWEEPS[name], then)
    assert compared


@pytest.mark.parametrize("name", ["values", "files that all share", "files that differ", "a network"])
def test_a_sweep_over_values_composes_nothing(
    planner_of: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[int] = []

    def then(planner: Any, jobs: list[list[str]]) -> None:
        load = planner.loader.load_sweep_config

        def counted(*arguments: Any) -> Any:
            composed.append(1)
            return load(*arguments)

        monkeypatch.setattr(planner.loader, "load_sweep_config", counted)
        for job in jobs:
            planner.compose(job)

    planner_of(SWEEPS[name], then)
    assert len(composed) == (2 if name == "files that differ" else 0)


TWICE = {
    "the same key twice": ["lr=0.1,0.10"],
    "another name of a loss": ["loss=auto,cross_entropy"],
    "a loss's default output": ["loss.output=null,softmax"],
    "a class weight of 1": ["loss.class_weight=none,{a:1}"],
    "the usual monitor": ["monitor=null,accuracy/val"],
    "who computes a gradient": ["gradient=auto,autograd"],
    "an engine": ["engine=compiled,torch"],
}


@pytest.mark.parametrize("case", TWICE)
def test_a_run_that_is_said_in_two_ways_is_one_line(case: str, ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", *TWICE[case], "epochs=1", "name=x")
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert "same run" in result.err or "duplicated" in result.err
    assert not (tmp_path / "outputs").exists()
