"""What is used of OmegaConf that is not its public interface.

tests/configuration/test_omegaconf_internals.py says what is relied on.
"""

from __future__ import annotations

import functools
from typing import Any

import omegaconf._utils
import yaml
from omegaconf import Node
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader
from omegaconf.basecontainer import BaseContainer
from omegaconf.grammar_parser import parse

__all__ = [
    "BaseContainer",
    "full_key",
    "get_omega_conf_dumper",
    "get_yaml_loader",
    "omegaconf_utils",
    "parsed_once",
    "quick_yaml_loader",
    "resolvers",
]

omegaconf_utils = omegaconf._utils
"""Where OmegaConf looks for the class that reads YAML, `get_yaml_loader()`, and for `parse`, by which it
checks every text that holds an interpolation whenever a node is given it."""


@functools.cache
def quick_yaml_loader() -> Any:
    """The class by which OmegaConf reads YAML, with the parser in C where there is one."""
    own = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return own

    parser: Any = vars(yaml.cyaml)["CParser"]

    def begin(self: Any, stream: Any) -> None:
        for base in (yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
            base.__init__(self)
        parser.__init__(self, stream)

    return type("QuickLoader", (parser, own), {"__init__": begin})


parsed_once = functools.lru_cache(1000)(parse)
"""OmegaConf's check of interpolations, once for each text."""


def resolvers() -> dict[str, object]:
    """All registered resolvers, OmegaConf's own among them, by their names."""
    return dict(BaseContainer._resolvers)


def full_key(node: Node) -> str:
    """Where a node lies in its configuration: `optimizer.lr`."""
    return node._get_full_key(None)
