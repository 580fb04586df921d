"""Data sets that a command has loaded, kept until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_KEPT = 4
"""Data sets that are kept at a time."""

_kept: dict[str, Any] | None = None
"""None outside `loaded_once`: nothing outlives it, so that no run sees what an earlier command has loaded."""


@contextmanager
def loaded_once() -> Iterator[None]:
    """Within this context load each data set once, even if its files change meanwhile: the runs of a
    command, which may be hundreds, train on the same rows. Commands are not nested."""
    global _kept  # noqa: PLW0603  # threads of a sweep share it, as they share the data
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def kept(key: str, load: Callable[[], Any]) -> Any:
    """What `load` gives, or gave for this key before, within one `loaded_once`."""
    if _kept is None:
        return load()
    if key not in _kept:
        while len(_kept) >= MAX_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = load()
    return _kept[key]
