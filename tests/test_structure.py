"""Laws of the house that the import contracts in pyproject.toml cannot say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ffn_bench

PACKAGE = Path(ffn_bench.__file__).parent
PLUGIN = PACKAGE.parent / "hydra_plugins"
INTERNALS = {
    "hydra": PACKAGE / "command_line" / "hydra_internals.py",
    "omegaconf": PACKAGE / "configuration" / "omegaconf_internals.py",
    "torch": PACKAGE / "model" / "torch_internals.py",
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PLUGIN.rglob("*.py")])


def private_names(path: Path) -> set[str]:
    """Libraries of whose modules a file imports, or reads, a name that begins with an underscore."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)] if re.fullmatch(r"\w+(\.\w+)+", ast.unparse(node)) else []
        for name in names:
            library, *rest = name.split(".")
            if library in INTERNALS and any(re.match("_[a-z]|aten$", part) for part in rest):
                found.add(library)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_private_names_of_others_stand_in_one_module(path: Path) -> None:
    for library in private_names(path):
        assert path == INTERNALS[library], f"{path.name} uses private names of {library}"


def test_the_modules_of_private_names_have_some() -> None:
    assert all(library in private_names(path) for library, path in INTERNALS.items())


def test_tests_mirror_the_packages() -> None:
    tests = Path(__file__).parent
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    folders = {p.parent.name for p in tests.glob("*/test_*.py")}
    assert folders == packages
