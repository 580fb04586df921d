"""`.hydra` as Hydra would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cases import composed
from ffn_bench.run_folder import hydra_files
from ffn_bench.run_folder.files import Folder

SIGNS = "ab 0-.:#'\"\n\t${}[],Äé"
KEYS = st.text(f"xyz_{SIGNS}", max_size=6)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(SIGNS, max_size=120)
NODES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, NODES, min_size=1, max_size=4))
def test_nodes_one_by_one_are_the_whole(content: dict[str, Any]) -> None:
    nodes = (hydra_files._node((key,), value) for key, value in content.items())
    assert "".join(nodes) == hydra_files._yaml(content)


def test_files_read_back(tmp_path: Path) -> None:
    """Those of two runs that differ in a few keys."""
    for seed in (1, 2):
        config = OmegaConf.to_container(composed(f"seed={seed}", "optimizer=sgd", "name=012"))
        assert isinstance(config, dict)
        hydra = {
            "job": {"num": seed, "id": str(seed)},
            "overrides": {"task": [f"seed={seed}"]},
            "verbose": False,
        }
        hydra_files.write(Folder(tmp_path / str(seed)), config, hydra, [f"seed={seed}"])
        own = tmp_path / str(seed) / ".hydra"
        assert OmegaConf.to_container(OmegaConf.load(own / "config.yaml")) == config
        assert OmegaConf.to_container(OmegaConf.load(own / "hydra.yaml")) == {
            "hydra": {**hydra, "output_subdir": ".hydra"}
        }
        assert OmegaConf.load(own / "overrides.yaml") == [f"seed={seed}"]
