"""Data sets that a command has loaded, or was given, kept until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_KEPT = 4
"""Data sets that are kept at a time."""

_kept: dict[str, Any] | None = None
"""None outside `loaded_once`: nothing outlives it, so that no run sees what an earlier command has loaded."""


_given: Any = None
"""Within `loaded_once`, what it was given."""


@contextmanager
def loaded_once(given: Any = None) -> Iterator[None]:
    """Within this context load each data set once, even if its files change meanwhile: the runs of a
    command, which may be hundreds, train on the same rows. `given` are rows that nothing can load. Commands
    are not nested."""
    global _kept, _given  # noqa: PLW0603  # threads of a sweep share it, as they share the data
    _kept, _given = {}, given
    try:
        yield
    finally:
        _kept = _given = None


def given() -> Any:
    """What `loaded_once` was given; None without."""
    return _given


def kept(key: str, load: Callable[[], Any]) -> Any:
    """What `load` gives, or gave for this key before, within one `loaded_once`."""
    if _kept is None:
        return load()
    if key not in _kept:
        while len(_kept) >= MAX_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = load()
    return _kept[key]
