"""Random numbers as a pure function of a seed and what they are for."""

from __future__ import annotations

import numpy as np

PURPOSES = ("initial weights", "order of an epoch")
"""Each has numbers of its own: a purpose keeps its place here."""


def generator(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """Random numbers for a purpose; in each epoch others.

    The bits of Philox are the same everywhere. What a `Generator` makes of them is the same for one version
    of NumPy, and may change with another (NEP 19), so a run's version is recorded; a normal number may differ
    in its last bit where the C library's log and exp do.

    Philox counts instead of iterating (Salmon et al., 2011), so that no epoch needs the ones before it.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), epoch))
    return np.random.Generator(np.random.Philox(sequence))
