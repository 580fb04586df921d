"""JAX: an epoch as `scan` over the steps, several runs under `vmap`; optax's Adam."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.work import Epoch, Work


def scan(work: Work, runs: int = 1) -> Epoch:
    """On all of JAX's threads. Every run has its data order, learning rate, betas; losses are kept."""
    x, y = work.data()
    features, labels = jnp.asarray(x), jnp.asarray(y)

    def start(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        layers = []
        for n_in, n_out in work.layers:
            key, own = jax.random.split(key)
            bound = n_in**-0.5
            layers.append(
                (jax.random.uniform(own, (n_in, n_out), minval=-bound, maxval=bound), jnp.zeros(n_out))
            )
        return layers

    def loss(layers: Any, rows: Any) -> Any:
        h = features[rows]
        for W, b in layers[:-1]:
            h = jax.nn.relu(h @ W + b)
        logits = h @ layers[-1][0] + layers[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def train(layers: Any, state: Any, order: Any, lr: Any, beta: Any) -> Any:
        optimizer = optax.adam(lr, beta)

        def step(carry: Any, rows: Any) -> Any:
            layers, state = carry
            value, gradient = jax.value_and_grad(loss)(layers, rows)
            updates, state = optimizer.update(gradient, state, layers)
            return (optax.apply_updates(layers, updates), state), value

        (layers, state), losses = jax.lax.scan(step, (layers, state), order)
        return layers, state, losses

    lr, beta = jnp.linspace(0.001, 0.005, runs), jnp.full(runs, 0.9)
    layers = jax.vmap(start)(jax.random.split(jax.random.PRNGKey(0), runs))
    state = jax.vmap(optax.adam(0.001).init)(layers)
    if runs == 1:
        layers, state, lr, beta = jax.tree.map(lambda leaf: leaf[0], (layers, state, lr, beta))
    program = jax.jit(train if runs == 1 else jax.vmap(train))
    epochs = 0

    def epoch() -> tuple[int, float]:
        nonlocal layers, state, epochs
        epochs += 1
        started = time.perf_counter()
        orders = np.stack([work.order(seed, epochs) for seed in range(runs)])  # type: ignore[misc]
        order = jnp.asarray(
            orders.reshape(runs, work.steps, work.batch_size)[0 if runs == 1 else slice(None)]
        )
        layers, state, losses = program(layers, state, order, lr, beta)
        losses.block_until_ready()
        return runs * work.steps, time.perf_counter() - started

    return epoch
