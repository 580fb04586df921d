"""Files at the top of the checkout that must agree."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

import ffn_bench

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] == ffn_bench.__version__
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
