"""Laws of the house that the import contracts in pyproject.toml cannot say."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
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
    libraries = set()
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
            if library in INTERNALS and any(re.match("_[a-z]|aten$", word) for word in rest):
                libraries.add(library)
    return libraries


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_private_names_of_others_stand_in_one_module(path: Path) -> None:
    for library in private_names(path):
        assert path == INTERNALS[library], f"{path.name} uses private names of {library}"


def test_the_modules_of_private_names_have_some() -> None:
    assert all(library in private_names(path) for library, path in INTERNALS.items())


TESTS = Path(__file__).parent
POSITIONAL = {
    "Pair", "Cell", "Competitor", "Study",
    "Segment",
    "Trained", "Distribution", "Curvature",
    "ContourFigure", "Problem", "Track", "Scene",
}  # fmt: skip
"""Dataclasses that are still made by position. None may be added."""


def test_dataclasses_of_more_than_six_fields_are_made_by_keyword() -> None:
    names = ["ffn_bench", *(m.name for m in pkgutil.walk_packages(ffn_bench.__path__, "ffn_bench."))]
    modules = [importlib.import_module(name) for name in names]
    large = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and len(dataclasses.fields(kind)) > 6
        if kind.__module__.startswith("ffn_bench.")
    }
    assert len(large) > 10
    by_position = {
        kind.__name__ for kind in large if sum(not f.kw_only for f in dataclasses.fields(kind)) > 3
    }
    assert by_position <= POSITIONAL


def test_tests_mirror_the_packages() -> None:
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    folders = {p.parent.name for p in TESTS.glob("*/test_*.py")}
    assert folders == packages


def test_the_map_of_tests_lists_every_file_once() -> None:
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", (TESTS / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(TESTS)) for p in TESTS.rglob("*.py"))


def test_the_architecture_names_every_module_once() -> None:
    """Its table of modules, by package."""
    text = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    table = text.partition("## Modules")[2].partition("\n## ")[0]
    listed: list[str] = []
    package = ""
    for line in table.splitlines():
        if heading := re.match(r"\| \*\*`([\w/]*)`\*\* ", line):
            package = heading[1].removeprefix("ffn_bench/")
        elif name := re.match(r"\| `([\w.]+)` \|", line):
            listed.append(package + name[1])
    modules = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    assert sorted(listed) == sorted(map(str, modules))
