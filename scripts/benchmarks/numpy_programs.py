"""Of NumPy's world: scikit-learn's network, and the matrix products of a step without anything else."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.work import Epoch, Work


def scikit_learn(work: Work) -> Epoch:
    """scikit-learn's MLPClassifier, one pass over the data a call."""
    from sklearn.neural_network import MLPClassifier

    hidden = work.widths[1:-1]
    model = MLPClassifier(hidden, batch_size=work.batch_size, learning_rate_init=0.005, alpha=0.0)
    (features, labels), classes = work.data(), list(range(work.widths[-1]))

    def epoch() -> tuple[int, float]:
        start = time.perf_counter()
        model.partial_fit(features, labels, classes=classes)
        return work.steps, time.perf_counter() - start

    return epoch


def products(work: Work) -> Epoch:
    """A step's products by BLAS, on this process's threads: h W, hᵀ ḡ, and but in the first layer ḡ Wᵀ."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.standard_normal(shape).astype(work.dtype)

    b = work.batch_size
    operands = []
    for k, (n_in, n_out) in enumerate(work.layers):
        h, W, g = random(b, n_in), random(n_in, n_out), random(b, n_out)
        operands += [(h, W, np.empty((b, n_out), h.dtype)), (h.T, g, np.empty((n_in, n_out), h.dtype))]
        if k:
            operands.append((g, W.T, np.empty((b, n_in), h.dtype)))

    def epoch() -> tuple[int, float]:
        start = time.perf_counter()
        for _ in range(work.steps):
            for left, right, result in operands:
                np.matmul(left, right, out=result)
        return work.steps, time.perf_counter() - start

    return epoch


def blas() -> str:
    """NumPy's BLAS in words: the library, its kernel and threads."""
    from threadpoolctl import threadpool_info

    (info,) = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return (
        f"{info['internal_api']} {info['version']} ({info.get('architecture')}, {info['num_threads']} thread)"
    )
