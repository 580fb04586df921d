"""Numbers as a person writes them: only those that every reader takes for the same number."""

from __future__ import annotations

import math
import re
from typing import Any

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
REAL = re.compile(r"-?(((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|\.?(inf|nan))", re.IGNORECASE)
MAX_CHARACTERS = 300
"""Of a number; Python itself refuses more than 4300 digits."""


def misread(text: str) -> str | None:
    """What a number's text is read as, where that is not what it looks like; None where it is.

    `010` is 8 in YAML and 10 in Python, `12:30:00` is 45000, `1_000` and `0x10` have other readers,
    `1e400` is infinity and `1e-400` is 0.
    """
    if len(text) > MAX_CHARACTERS:
        return f"a number of {len(text):,} characters"
    if not REAL.fullmatch(text):
        if ":" in text:
            return "a number to base 60"
        if re.fullmatch(r"[-+]?0[0-9_]+", text):
            return "octal, and other readers do not"
        return "a number in another notation"
    if INTEGER.fullmatch(text) or text.lower().endswith(("inf", "nan")):
        return None
    value = float(text)
    if math.isinf(value):
        return "infinity"
    if value == 0 and re.search("[1-9]", re.split("e", text, flags=re.IGNORECASE)[0]):
        return "0"
    return None


def plain(text: str) -> Any:
    """What a text says: a number in plain notation, true or false, or itself."""
    if INTEGER.fullmatch(text) and not misread(text):
        return int(text)
    if REAL.fullmatch(text) and not misread(text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)
