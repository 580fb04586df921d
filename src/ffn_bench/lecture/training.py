"""L12 and L13: SGD for deep learning, and the pipeline around it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ffn_bench.configuration.schema import HiddenConfig, MlpConfig, MoonsConfig, SplitDataConfig
from ffn_bench.data.batches import epoch_order
from ffn_bench.engine.evaluation import evaluate
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic
from ffn_bench.model.backprop import by_hand
from ffn_bench.model.network import FFN
from ffn_bench.tags import LOSS, SCORE


@topic("deep", "L12", "SGD for deep learning")
def deep(context: Context) -> Iterator[Row]:
    """b = 32, 50 epochs, N/b iterations an epoch: sample, forward, back-propagate, and for each layer
    W_k ← W_k − η ∂l/∂W_k, b_k ← b_k − η ∂l/∂b_k. Written out with the gradients by hand, on the digits."""
    data = load_tensors(SplitDataConfig(name="digits"))
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), context.seed, F64)
    twin = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), context.seed, F64)
    builtin = torch.optim.SGD(twin.parameters(), lr=0.1)
    n, η, iterations, gap = len(data.train.y), 0.1, 0, 0.0
    before = evaluate(net, data.train)
    for epoch in range(1, 51):
        for rows in torch.from_numpy(epoch_order(n, context.seed, epoch)).split(32):
            x, y = data.train.x[rows], data.train.y[rows]
            gradients = by_hand(net.layers, x, y, net.activation)
            with torch.no_grad():
                for (W, b), (dW, db) in zip(net.layers, gradients.layers, strict=True):
                    W.sub_(η * dW)
                    b.sub_(η * db)
            iterations += 1
            if epoch == 1:  # compare with PyTorch's autograd and SGD for one epoch
                builtin.zero_grad()
                torch.nn.functional.cross_entropy(twin(x), y).backward()
                builtin.step()
        if epoch == 1:
            gap = max(
                float((p - q).abs().max().detach())
                for p, q in zip(net.parameters(), twin.parameters(), strict=True)
            )
    yield compare("iterations: 50 ⌈N/b⌉", 50 * math.ceil(n / 32), iterations)
    yield compare("largest weight difference from torch.optim.SGD after one epoch", 0.0, gap, 1e-10)
    after, test = evaluate(net, data.train), evaluate(net, data.test)
    losses, score = [values[LOSS.name] for values in (before, after)], test[SCORE.name]
    yield holds(f"{LOSS.words('train')}, before and after", "falls", losses, losses[1] < losses[0] / 10)
    yield holds(SCORE.words("test"), "> 0.9", score, score > 0.9)


@topic("pipeline", "L13", "The pipeline")
def pipeline(context: Context) -> Iterator[Row]:
    """Train on a training set, choose hyper-parameters on a validation set, report on a separate test
    set: a network with enough parameters memorises its training rows, and a score used for
    choosing is optimistic."""
    data = load_tensors(MoonsConfig(name="moons", n_samples=300, noise=0.5))
    net = FFN([2, 64, 64, 2], MlpConfig(name="mlp", depth=2, width=64), context.seed, F64)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(600):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(data.train.x), data.train.y).backward()
        optimizer.step()
    train, test = (evaluate(net, split)[SCORE.name] for split in (data.train, data.test))
    yield holds(
        f"noisy moons, 4,482 parameters, 210 rows: training and {SCORE.words('test')}",
        "training ≫ test",
        [train, test],
        train > test + 0.1,
    )
    generator = torch.Generator().manual_seed(context.seed)
    right = torch.rand(1000, 200, generator=generator) < 0.5
    chosen, fresh = (
        right[:, :100].double().mean(1).max(),
        right[right[:, :100].double().mean(1).argmax(), 100:].double().mean(),
    )
    yield holds(
        "best of 1,000 coin-tossing classifiers on 100 rows, and on 100 others",
        "> 0.6, then about 0.5",
        [float(chosen), float(fresh)],
        chosen > 0.6 and abs(fresh - 0.5) < 0.2,
    )
    rows_of_splits = [set(map(tuple, subset.x.tolist())) for subset in (data.train, data.val, data.test)]
    shared = sum(map(len, rows_of_splits)) - len(set.union(*rows_of_splits))
    yield compare("rows that are in two of the three sets", 0, shared)
