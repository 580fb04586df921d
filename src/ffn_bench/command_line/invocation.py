"""How the command was called, and where its YAML files lie."""

from __future__ import annotations

import sys
from pathlib import Path


def command_name() -> str:
    """The command as it was called, for messages."""
    return Path(sys.argv[0]).stem


def config_folder() -> Path:
    """The YAML files: inside the package once it is installed from a wheel, else at the checkout's top."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
