"""The lecture as a command: all numbers agree, a planted error is found, figures are written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from conftest import files_below
from ffn_bench.configuration import parsing
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration.schema import LectureConfig
from ffn_bench.lecture import command
from ffn_bench.lecture.command import chosen
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.optimizers.rules import RULES
from ffn_bench.run_folder.files import MANIFEST

TOPICS = [topic.name for topic in chosen("all")]


def composed(*overrides: str) -> DictConfig:
    store = ConfigStore.instance()
    store.store(group="_schema", name="lecture", node=parsing.untyped(LectureConfig), package="_global_")
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose("lecture", list(overrides))


def test_the_topics_are_the_lectures_in_its_order() -> None:
    numbers = [topic.number for topic in chosen("all")]
    assert numbers == [f"L{k}" for k in range(2, 17)]


@pytest.mark.parametrize("topic", TOPICS)
def test_every_number_agrees(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.show(composed(f"topic={topic}"))
    out = capsys.readouterr().out
    assert "✗" not in out
    assert out.count("✓") >= 3
    assert "numbers agree" in out


@pytest.mark.parametrize(
    "model", ["model=linear", "model=mlp model.depth=3 model.width=7 model.activation=tanh"]
)
def test_the_gradient_check_of_a_persons_own_network(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.show(composed("topic=backprop", "data=spirals", *model.split()))
    out = capsys.readouterr().out
    layers = 1 if "linear" in model else 4
    assert f"layer {layers}," in out
    assert f"layer {layers + 1}," not in out


def test_a_planted_sign_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = replace(ACTIVATIONS["sigmoid"], derivative=lambda h_bar, h: h * (1 + h))
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", wrong)
    assert not command.show(composed("topic=layer"))
    assert not command.show(composed("topic=backprop", "model.activation=sigmoid"))
    assert "✗ layer: σ'(h̄) = h(1−h)" in capsys.readouterr().out


def test_a_misplaced_epsilon_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(g: Any, θ: Any, state: Any, c: Any) -> Any:
        η, ε = c
        γ = state[0] + g * g
        return θ - η * g / (γ.sqrt() + ε), (γ,)

    monkeypatch.setitem(RULES, "lecture/adagrad", replace(RULES["lecture/adagrad"], update=outside))
    assert not command.show(composed("topic=rules"))


@pytest.fixture
def ffn_lecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ffn-lecture", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    yield run


def test_the_command_leaves_nothing_but_the_figures(
    ffn_lecture: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = ffn_lecture("topic=surface,jacobian", "save=figures")
    assert (code, err) == (0, "")
    assert out.index("L2 ·") < out.index("L8 ·")
    names = [MANIFEST, "surface.png", "surface.svg"]
    assert files_below(tmp_path) == [tmp_path / "figures" / name for name in names]
    assert "ffn-lecture topic=surface" in (tmp_path / "figures" / "surface.svg").read_text()


def test_a_manifest_that_is_none_is_told_at_once(
    ffn_lecture: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / MANIFEST).write_text("mine")
    code, out, err = ffn_lecture("topic=surface", "save=figures")
    assert (code, out, err.count("\n")) == (4, "", 1)


def test_the_exit_status_tells_a_disagreement(
    ffn_lecture: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "tanh", replace(ACTIVATIONS["tanh"], derivative=lambda h_bar, h: h))
    assert ffn_lecture("topic=layer")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["topic=backprp"], 2, "'backprop'"),
        (["topic=[]"], 2, "topic"),
        (["topc=all"], 2, "topic"),
        (["+foo=1"], 2, "foo"),
        (["topic=null"], 2, "topic"),
        (["topic=5"], 2, "'5'"),
        (["-m", "topic=rules"], 2, "sweep"),
        (["topic=foo", "save=nd"], 2, "'foo'"),
        (["data=csv", "topic=backprop"], 2, "data.path"),
        (["seed=-1"], 2, "seed"),
        (["model.activation=rellu", "topic=backprop"], 2, "'relu'"),
        (["save=/proc/x", "topic=jacobian"], 4, "/proc: cannot be written"),
        (["data=csv", "data.path=no.csv", "data.target=y", "topic=backprop"], 3, "no.csv"),
        (
            ["data=csv", "data.path=no.csv", "data.target=y", "topic=[jacobian,backprop]", "save=a"],
            3,
            "no.csv",
        ),
        (["model=mlp", "model.width=100000000", "topic=[surface,backprop]", "save=a"], 5, "GB to train"),
        (["save=a/../../x9", "topic=surface"], 4, "'..'"),
    ],
)
def test_mistakes_are_one_line(
    ffn_lecture: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    status, _, err = ffn_lecture(*arguments)
    assert status == code
    assert err.count("\n") == 1
    assert err.startswith("ffn-lecture: error: ")
    assert word in err
    assert list(tmp_path.iterdir()) == []
