"""The numbers of the compiled engine are, to the last bit, those that were recorded when its format began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import digest
from conftest import Command

RECORDED = json.loads((Path(__file__).parent / "digests.json").read_text())
SINGLE = {" ".join(arguments): arguments for arguments in digest.commands()}


@pytest.mark.parametrize("name", [name for name in RECORDED if name in SINGLE])
def test_a_run_has_the_bits_that_were_recorded(name: str, ffn: Command, tmp_path: Path) -> None:
    """On any processor with AVX2: scripts/digest.py --engine compiled --write writes them anew."""
    result = ffn(*SINGLE[name], "engine=compiled", "name=x")
    assert result.code in (0, 3), result.err
    assert digest.digest(tmp_path / "outputs" / "x") == RECORDED[name]


def test_most_runs_are_recorded() -> None:
    assert len(set(SINGLE) & set(RECORDED)) >= 35
