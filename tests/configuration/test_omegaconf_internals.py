"""What is relied on of OmegaConf's private names."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse

from ffn_bench.configuration import omegaconf_internals as internals
from ffn_bench.configuration.rule_files import config_folder


def test_resolvers_are_by_name() -> None:
    assert "oc.env" in internals.resolvers()


def test_a_node_knows_its_place() -> None:
    cfg = OmegaConf.create({"optimizer": {"lr": 0.1}})
    assert internals.full_key(cfg.optimizer._get_node("lr")) == "optimizer.lr"


def test_yaml_is_read_and_written_as_omegaconf_does() -> None:
    text = "lr: 1e-3\nname: '010'\n"
    loaded = yaml.load(text, Loader=internals.get_yaml_loader())
    assert loaded == {"lr": 0.001, "name": "010"} == OmegaConf.to_container(OmegaConf.create(text))
    assert yaml.dump({"name": "010"}, Dumper=internals.get_omega_conf_dumper()) == "name: '010'\n"


def test_libyaml_reads_all_shipped_files_as_omegaconf_does() -> None:
    folders = [config_folder(), Path(str(importlib.resources.files("hydra.conf")))]
    files = [file for folder in folders for file in folder.rglob("*.yaml")]
    assert len(files) > 60
    for file in files:
        text = file.read_text()
        by_omegaconf, quick = internals.get_yaml_loader(), internals.quick_yaml_loader()
        assert repr(yaml.load(text, Loader=quick)) == repr(yaml.load(text, Loader=by_omegaconf)), file


@pytest.mark.parametrize(
    "text", ["a: 1e3\nb: 010\nc: 2020-01-01\nd: .5\ne: 1_0", "a: 1\na: 2", "a: [", "a: !!x 1"]
)
def test_libyaml_reads_scalars_and_refuses_faults_as_omegaconf_does(text: str) -> None:
    def read(loader: Any) -> str:
        try:
            return repr(yaml.load(text, Loader=loader))
        except yaml.YAMLError as e:
            return type(e).__name__

    assert read(internals.quick_yaml_loader()) == read(internals.get_yaml_loader())


def test_an_interpolation_is_parsed_whenever_a_node_is_set() -> None:
    assert vars(internals.omegaconf_utils)["parse"] is parse
    with pytest.raises(GrammarParseError):
        OmegaConf.create({"a": "${b:"})
    with pytest.raises(GrammarParseError):
        internals.parsed_once("${b:")
