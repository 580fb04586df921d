"""What is used of OmegaConf that is not its public interface.

tests/configuration/test_omegaconf_internals.py says what is relied on.
"""

from __future__ import annotations

from omegaconf import Node
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader
from omegaconf.basecontainer import BaseContainer

__all__ = ["BaseContainer", "full_key", "get_omega_conf_dumper", "get_yaml_loader", "resolvers"]


def resolvers() -> dict[str, object]:
    """All registered resolvers, OmegaConf's own among them, by their names."""
    return dict(BaseContainer._resolvers)


def full_key(node: Node) -> str:
    """Where a node lies in its configuration: `optimizer.lr`."""
    return node._get_full_key(None)
