"""How the command was called."""

from __future__ import annotations

from pathlib import Path

from ffn_bench import guest


def command_name() -> str:
    """The command as it was called, for messages."""
    return Path(guest.command_line()[0]).stem
