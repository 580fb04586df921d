"""What is relied on of OmegaConf's private names."""

from __future__ import annotations

import yaml
from omegaconf import OmegaConf

from ffn_bench.configuration import omegaconf_internals as internals


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
