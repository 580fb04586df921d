"""How the command was called."""

from __future__ import annotations

import sys
from pathlib import Path


def command_name() -> str:
    """The command as it was called, for messages."""
    return Path(sys.argv[0]).stem
