"""Checks of single values: bounds of numbers, names from a list."""

from __future__ import annotations

import re

from ffn_bench.errors import UserError, nearest


def at_most(value: float, bound: float, key: str) -> None:
    """Raise `UserError` unless `value` ≤ `bound`."""
    if value > bound:
        raise UserError(key, f"{value:g} is too large", f"use a number of at most {bound:,g}")


def check_seed(seed: int, key: str) -> None:
    """Raise `UserError` unless every random generator takes the seed (scikit-learn's takes 32 bits)."""
    if not 0 <= seed < 2**32:
        raise UserError(key, f"{seed} is not between 0 and {2**32 - 1}", "use an integer in that range")


def at_least(value: float, bound: float, key: str, *, open_bound: bool = False) -> None:
    """Raise `UserError` unless `value` ≥ `bound` (> with `open_bound`)."""
    if value < bound or (open_bound and value == bound):
        relation = "above" if open_bound else "at least"
        raise UserError(key, f"{value:g} is too small", f"use a number {relation} {bound:g}")


def one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
    """Raise `UserError`, with the nearest right name, unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError(
            key, f"{value!r} is not known{nearest(str(value), allowed)}", f"use one of: {', '.join(allowed)}"
        )


def delimiter(text: str) -> str:
    """What `data.delimiter` names: a tab is `tab` or `\\t`, too.

    Raises `UserError` unless that is one character that can separate cells.
    """
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise UserError("data.delimiter", f"{text!r} is not one character", "use , or ; or tab")
    return text


def check_at(at: str) -> None:
    """Raise `UserError` unless a value of the key `at` is `last`, `best` or `epoch:N`."""
    if at not in ("last", "best") and not re.fullmatch(r"epoch:[0-9]{1,9}", str(at)):
        what = f"{at!r} is not known{nearest(str(at), ('last', 'best', 'epoch'))}"
        raise UserError("at", what, "use one of: last, best, epoch:N with the number of an epoch")
