"""L9, L10 and L12 to L16: gradient descent, SGD, the pipeline, the update rules, the race, second order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ffn_bench.configuration import schema
from ffn_bench.configuration.schema import HiddenConfig, MlpConfig, MoonsConfig, SplitDataConfig
from ffn_bench.data.datasets import load
from ffn_bench.data.splitting import Data, epoch_order
from ffn_bench.engine.metrics import evaluate
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic, vector
from ffn_bench.model.backprop import by_hand
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.network import FFN
from ffn_bench.optimizers import schedules
from ffn_bench.optimizers.newton import Newton, damped_newton_step
from ffn_bench.optimizers.rules import RULES, RuleOptimizer
from ffn_bench.race.surfaces import SURFACES, Surface
from ffn_bench.tags import LOSS, SCORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CPU = torch.device("cpu")


def gradient(f: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """∇f at w, by autograd."""
    w = w.detach().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w)
    return g


def descend(
    f: Callable[[Tensor], Tensor], w: Tensor, η: float, steps: int, noise: float = 0.0, seed: int = 0
) -> Tensor:
    """The path of gradient descent, `[steps + 1, …]`; with `noise`, Gaussian noise on every gradient."""
    generator = torch.Generator().manual_seed(seed)
    path = [w.detach()]
    for _ in range(steps):
        shake = noise * torch.randn(w.shape, generator=generator, dtype=F64)
        path.append(path[-1] - η * (gradient(f, path[-1]) + shake))
    return torch.stack(path)


# --- L9 -------------------------------------------------------------------------------------------------


def _parabola(w: Tensor) -> Tensor:
    return (w - 1) ** 2 + (w - 3) ** 2


def _two_wells(w: Tensor) -> Tensor:
    return w**4 / 4 - w**2 / 2 + w / 5


def _saddle_between_wells(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 + θ[..., 1] ** 4 / 4 - θ[..., 1] ** 2 / 2


@topic("descent", "L9", "Gradient descent on the whole training set")
def descent(context: Context) -> Iterator[Row]:
    """θ_{t+1} = θ_t − η ∇J(θ_t), O(N) a step. Convex: it reaches the global minimum. Non-convex: it can
    stop at a local minimum or at a saddle; noise on the gradient leaves the saddle. Worked: f =
    (w−1)² + (w−3)², w = 1, η = 0.1."""
    w = vector(1.0)[0].detach()
    yield compare("f'(1)", -4.0, gradient(_parabola, w))
    step = descend(_parabola, w, 0.1, 1)[1]
    yield compare("w' = w − η f'(w)", 1.4, step)
    yield compare("f: 4 → 2.72", [4.0, 2.72], [float(_parabola(w)), float(_parabola(step))])
    yield compare(
        "convex: where 60 steps end (the minimum is 2)", 2.0, descend(_parabola, w, 0.1, 60)[-1], 1e-5
    )

    right, left = (descend(_two_wells, vector(s)[0], 0.1, 300)[-1] for s in (1.5, -1.5))
    yield compare(
        "two wells f = w⁴/4 − w²/2 + w/5: f' where it stops, from the right",
        0.0,
        gradient(_two_wells, right),
        1e-9,
    )
    values = [float(_two_wells(right)), float(_two_wells(left))]
    yield holds(
        "stuck in the local minimum: f there, f in the other well",
        "higher, lower",
        values,
        values[0] > values[1] + 0.1,
    )

    f = _saddle_between_wells
    stuck = descend(f, vector(1.0, 0.0), 0.1, 300)
    yield compare("f = x² + y⁴/4 − y²/2 from (1, 0): stops at the saddle (0, 0)", [0.0, 0.0], stuck[-1], 1e-9)
    _, H = gradient_and_hessian(f(θ := vector(0.0, 0.0)), [θ])
    yield compare("eigenvalues of H there", [-1.0, 2.0], torch.linalg.eigvalsh(H))
    free = descend(f, vector(1.0, 0.0), 0.1, 300, noise=0.01, seed=context.seed)
    yield compare(
        "with noise of 0.01 on the gradient: |y| at the end (the minima are y = ±1)",
        1.0,
        free[-1][1].abs(),
        0.02,
    )
    if context.draw:
        window = Surface(f, "x² + y⁴/4 − y²/2", (1.0, 0.0), (-0.6, 1.2, -1.4, 1.4))
        context.figures["descent"] = _paths(window, {"gradient descent": stuck, "with noise": free})


# --- L10 ------------------------------------------------------------------------------------------------


@topic("sgd", "L10", "Stochastic gradient descent")
def sgd(context: Context) -> Iterator[Row]:
    """The gradient of b uniform rows is an unbiased estimate of the full one, at O(b) instead of O(N) a step.
    Worked: f = (1/1000) Σ (w−i)², batch {1,2,3,4}, w = 10, η = 0.1; one batch can point the wrong way."""
    numbers = torch.arange(1, 1001, dtype=F64)
    w = vector(10.0)[0].detach()

    def mean_over(rows: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda w: ((w[..., None] - rows) ** 2).mean(-1)

    g = gradient(mean_over(numbers[:4]), w)
    yield compare("f̃' = 2w − 5", 15.0, g)
    yield compare("w' = w − η f̃'", 8.5, w - 0.1 * g)
    full = gradient(mean_over(numbers), w)
    yield compare("the full gradient there", -981.0, full, 1e-9)
    yield compare("the minimiser", 500.5, numbers.mean())
    yield holds(
        "this batch points the wrong way", "signs differ", f"{float(g):g} and {float(full):g}", g * full < 0
    )

    generator = torch.Generator().manual_seed(context.seed)
    draws = 20_000
    batches = numbers[torch.randint(1000, (draws, 4), generator=generator)]
    estimates = 2 * (w - batches).mean(1)
    error = float(estimates.std() / draws**0.5)
    z = float((estimates.mean() - full) / error)
    what = f"mean of {draws:,} batch gradients: {float(estimates.mean()):.2f} ± {error:.2f}, errors from −981"
    yield holds(what, "|z| < 4", f"z = {z:.2f}", abs(z) < 4)
    b32 = numbers[torch.randint(1000, (draws, 32), generator=generator)]
    ratio = float(estimates.var() / (2 * (w - b32).mean(1)).var())
    yield compare("variance at b = 4 over variance at b = 32 (theory 8)", 8.0, ratio, 0.5, 2)

    rates = [
        schedules.build_schedule(schema.InverseTimeConfig(name="inverse_time", decay=1.0), 9, 3)(t)
        for t in range(4)
    ]
    yield compare("η_t ∝ 1/t: factors of the first four steps", [1.0, 1 / 2, 1 / 3, 1 / 4], rates)
    data = load(SplitDataConfig(name="digits")).to(CPU, torch.float32)
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), 0, torch.float32)
    few, many = 32, len(data.train.y)
    flops = [_flops_of_gradient(net, data, n) for n in (few, many)]
    what = f"operations of one gradient, {many:,} rows over {few} ({flops[1]:,} over {flops[0]:,}): N/b"
    yield compare(what, many / few, flops[1] / flops[0])


def _flops_of_gradient(net: FFN, data: Data, n: int) -> int:
    """Floating-point operations of the matrix products of one forward and backward pass on n rows."""
    with FlopCounterMode(display=False) as counter:
        by_hand(net.layers, data.train.x[:n], data.train.y[:n], net.activation)
    return int(counter.get_total_flops())


# --- L12, L13 -------------------------------------------------------------------------------------------


@topic("deep", "L12", "SGD for deep learning")
def deep(context: Context) -> Iterator[Row]:
    """b = 32, 50 epochs, N/b iterations an epoch: sample, forward, back-propagate, and for each layer
    W_k ← W_k − η ∂l/∂W_k, b_k ← b_k − η ∂l/∂b_k. Written out with the gradients by hand, on the digits."""
    data = load(SplitDataConfig(name="digits")).to(CPU, F64)
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), context.seed, F64)
    twin = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), context.seed, F64)
    builtin = torch.optim.SGD(twin.parameters(), lr=0.1)
    n, η, iterations, gap = len(data.train.y), 0.1, 0, 0.0
    before = evaluate(net, data.train)
    for epoch in range(1, 51):
        for rows in epoch_order(n, context.seed, epoch).split(32):
            x, y = data.train.x[rows], data.train.y[rows]
            found = by_hand(net.layers, x, y, net.activation)
            with torch.no_grad():
                for (W, b), (dW, db) in zip(net.layers, found.layers, strict=True):
                    W.sub_(η * dW)
                    b.sub_(η * db)
            iterations += 1
            if epoch == 1:  # beside PyTorch's autograd and SGD for one epoch
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
    losses, score = [found[LOSS.name] for found in (before, after)], test[SCORE.name]
    yield holds(f"{LOSS.words('train')}, before and after", "falls", losses, losses[1] < losses[0] / 10)
    yield holds(SCORE.words("test"), "> 0.9", score, score > 0.9)


@topic("pipeline", "L13", "The pipeline")
def pipeline(context: Context) -> Iterator[Row]:
    """Train on a training set, choose hyper-parameters on a validation set, report on a separate test
    set: a network with room enough learns its training rows by heart, and a number one has chosen by
    is too good."""
    data = load(MoonsConfig(name="moons", n_samples=300, noise=0.5)).to(CPU, F64)
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
    parts = [set(map(tuple, part.x.tolist())) for part in (data.train, data.val, data.test)]
    shared = sum(map(len, parts)) - len(set.union(*parts))
    yield compare("rows that are in two of the three parts", 0, shared)


# --- L14 ------------------------------------------------------------------------------------------------


def by_plain_floats(name: str, gs: Sequence[float], θ: float, η: float, h: dict[str, Any]) -> float:
    """The lecture's rules as L14 prints them, one number at a time, nothing shared with `rules`."""
    v = γ = s = 0.0
    for t, g in enumerate(gs, start=1):
        if name == "lecture/momentum":
            v = h["alpha"] * g + (1 - h["alpha"]) * v
            θ -= η * v
        elif name == "lecture/adagrad":
            γ += g * g
            θ -= η / math.sqrt(h["eps"] + γ) * g
        elif name == "lecture/rmsprop":
            γ = h["beta"] * γ + (1 - h["beta"]) * g * g
            θ -= η / math.sqrt(h["eps"] + γ) * g
        else:
            β1, β2 = h["betas"]
            s, γ = β1 * s + (1 - β1) * g, β2 * γ + (1 - β2) * g * g
            θ -= η / math.sqrt(h["eps"] + γ / (1 - β2**t)) * (s / (1 - β1**t))
    return θ


def by_rule(name: str, gs: Sequence[float], θ: float, η: float, **changed: Any) -> float:
    """The same through `rules.RULES`."""
    parameter = torch.nn.Parameter(torch.tensor(θ, dtype=F64))
    optimizer = RuleOptimizer([parameter], RULES[name], lr=η, **changed)
    return _follow(optimizer, parameter, gs)


def _follow(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, gs: Sequence[float]) -> float:
    for g in gs:
        parameter.grad = torch.tensor(g, dtype=F64)
        optimizer.step()
    return float(parameter.detach())


@topic("rules", "L14", "The update rules")
def rules(context: Context) -> Iterator[Row]:
    """SGD with momentum, AdaGrad, RMSProp and Adam exactly as the lecture states them, ε inside the
    root, α on the gradient. PyTorch puts ε outside, and its momentum is v ← μ v + g, whose first step
    is undamped. And what momentum is for: with condition κ, gradient descent contracts by (κ−1)/(κ+1)
    a step, momentum by (√κ−1)/(√κ+1)."""
    gs = [0.3, -1.2, 0.7, 0.05, 2.0]
    for name, rule in RULES.items():
        if name.startswith("lecture/"):
            expected = by_plain_floats(name, gs, 1.0, 0.1, dict(rule.defaults))
            yield compare(
                f"{name.removeprefix('lecture/')}: θ after 5 steps",
                expected,
                by_rule(name, gs, 1.0, 0.1),
                digits=8,
            )

    def pytorch(make: Callable[[list[Tensor]], torch.optim.Optimizer], gs: Sequence[float]) -> float:
        parameter = torch.nn.Parameter(torch.tensor(1.0, dtype=F64))
        return _follow(make([parameter]), parameter, gs)

    α = 0.25
    ours = 1 - by_rule("lecture/momentum", gs[:1], 1.0, 0.1, alpha=α)
    theirs = 1 - pytorch(lambda p: torch.optim.SGD(p, 0.1, momentum=1 - α, dampening=1 - α), gs[:1])
    yield compare("momentum's first step, α = ¼: the lecture takes η α g", 0.1 * α * gs[0], ours)
    yield compare("PyTorch with momentum = dampening = 1−α takes η g", 0.1 * gs[0], theirs)
    adam = [by_rule("lecture/adam", gs, 1.0, 0.1, eps=ε) for ε in (0.0, 0.1)]
    torchs = [pytorch(partial(torch.optim.Adam, lr=0.1, eps=ε), gs) for ε in (0.0, 0.1)]
    yield compare("Adam with ε = 0 is PyTorch's Adam", torchs[0], adam[0], digits=8)
    yield holds(
        "with ε = 0.1, inside the root and outside differ",
        "differ",
        [adam[1], torchs[1]],
        abs(adam[1] - torchs[1]) > 1e-3,
    )

    κ = 100.0
    diagonal = torch.tensor([1.0, κ], dtype=F64)
    η = 2 / (1 + κ)
    path = descend(lambda w: (diagonal * w * w).sum() / 2, vector(1.0, 1.0), η, 400)
    rate = float((path[400].norm() / path[300].norm()) ** 0.01)
    yield compare(
        "valley of condition 100: contraction of gradient descent, (κ−1)/(κ+1)",
        (κ - 1) / (κ + 1),
        rate,
        1e-6,
        6,
    )
    β = ((math.sqrt(κ) - 1) / (math.sqrt(κ) + 1)) ** 2
    heavy = _momentum_path(diagonal, (2 / (1 + math.sqrt(κ))) ** 2, β, 400)
    rate = float((heavy[400].norm() / heavy[200].norm()) ** (1 / 200))
    yield compare("of momentum, (√κ−1)/(√κ+1)", math.sqrt(β), rate, 0.02, 4)
    steps = [
        int((p.norm(dim=1) > 1e-6 * p[0].norm()).sum())
        for p in (descend(lambda w: (diagonal * w * w).sum() / 2, vector(1.0, 1.0), η, 900), heavy)
    ]
    yield holds(
        "steps to a millionth of the distance, without and with momentum",
        "many, few",
        steps,
        steps[1] < steps[0] / 4,
    )


def _momentum_path(diagonal: Tensor, η: float, μ: float, steps: int) -> Tensor:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=F64))
    optimizer = RuleOptimizer(
        [parameter], RULES["momentum"], lr=η, momentum=μ, dampening=0.0, nesterov=False, weight_decay=0.0
    )
    path = [parameter.detach().clone()]
    for _ in range(steps):
        parameter.grad = diagonal * parameter.detach()
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


# --- L15 ------------------------------------------------------------------------------------------------

RACERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, float]]] = {
    # a learning rate for each surface, fixed by hand: the picture ranks nothing
    "SGD": (torch.optim.SGD, {"saddle": 0.05, "valley": 0.015, "beale": 0.01}),
    "momentum": (partial(torch.optim.SGD, momentum=0.9), {"saddle": 0.02, "valley": 0.01, "beale": 0.005}),
    "AdaGrad": (torch.optim.Adagrad, {"saddle": 0.3, "valley": 0.4, "beale": 0.4}),
    "AdaDelta": (torch.optim.Adadelta, {"saddle": 20.0, "valley": 20.0, "beale": 20.0}),
    "RMSProp": (torch.optim.RMSprop, {"saddle": 0.02, "valley": 0.02, "beale": 0.02}),
    "Adam": (torch.optim.Adam, {"saddle": 0.05, "valley": 0.05, "beale": 0.1}),
    "NAdam": (torch.optim.NAdam, {"saddle": 0.05, "valley": 0.05, "beale": 0.1}),
    "Newton, damped": (partial(Newton, damping=0.5), {"saddle": 1.0, "valley": 1.0, "beale": 1.0}),
}  # fmt: skip


def race(surface: Surface, make: Callable[..., torch.optim.Optimizer], lr: float, steps: int = 150) -> Tensor:
    """An optimizer's path on a surface, `[steps + 1, 2]`."""
    θ = torch.nn.Parameter(torch.tensor(surface.start, dtype=F64))
    optimizer = make([θ], lr=lr)
    path = [θ.detach().clone()]
    for _ in range(steps):
        if isinstance(optimizer, Newton):
            optimizer.step(lambda: surface.function(θ))
        else:
            optimizer.zero_grad()
            surface.function(θ).backward()
            optimizer.step()
        path.append(θ.detach().clone())
    return torch.stack(path)


@topic("race", "L15", "All optimizers side by side")
def all_side_by_side(context: Context) -> Iterator[Row]:
    """One start, one surface, every optimizer's path: on a saddle, in an ill-conditioned valley, on
    Beale's function, and from one initialisation of a real network. Learning rates were set by hand
    for each: the picture ranks nothing."""
    all_paths: dict[str, dict[str, Tensor]] = {}
    for name in ("saddle", "valley", "beale"):
        surface = SURFACES[name]
        all_paths[name] = paths = {who: race(surface, make, lrs[name]) for who, (make, lrs) in RACERS.items()}
        for who, path in paths.items():
            values = surface.function(path)
            what = f"{name}, {surface.formula}: {who}, lr {RACERS[who][1][name]:g}"
            if name == "saddle":  # it falls for ever; what tells is when an optimizer has left the plateau
                left = int((values >= 0).sum())
                yield holds(what, "f < 0 in the end", f"f < 0 after {left} steps", values[-1] < 0)
            else:
                shown = f"{float(values[0]):.3f} → {float(values[-1]):.2g}"
                yield holds(what, "f falls in 150 steps", shown, values[-1] < values[0])
    data = load(SplitDataConfig(name="digits")).to(CPU, torch.float32)
    curves = {who: _network_curve(make, lr, data) for who, make, lr in NETWORK_RACERS}
    starts = {round(curve[0], 6) for curve in curves.values()}
    yield compare(
        "the digits network: different first losses among the optimizers (one start)", 1, len(starts)
    )
    for who, curve in curves.items():
        shown = f"{curve[0]:.3f} → {curve[-1]:.2g}"
        yield holds(
            f"the digits network: {who}, training loss", "falls in 100 steps", shown, curve[-1] < curve[0]
        )
    if context.draw:
        context.figures["race"] = _race_figure(all_paths, curves)


NETWORK_RACERS: list[tuple[str, Callable[..., torch.optim.Optimizer], float]] = [
    ("SGD", torch.optim.SGD, 0.3),
    ("momentum", partial(torch.optim.SGD, momentum=0.9), 0.1),
    ("AdaGrad", torch.optim.Adagrad, 0.05),
    ("AdaDelta", torch.optim.Adadelta, 3.0),
    ("RMSProp", torch.optim.RMSprop, 0.01),
    ("Adam", torch.optim.Adam, 0.02),
    ("NAdam", torch.optim.NAdam, 0.02),
]


def _network_curve(make: Callable[..., torch.optim.Optimizer], lr: float, data: Data) -> list[float]:
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), 0, torch.float32)
    optimizer = make(net.parameters(), lr=lr)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(data.train.x), data.train.y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


# --- L16 ------------------------------------------------------------------------------------------------


@topic("newton", "L16", "Second-order methods")
def newton(context: Context) -> Iterator[Row]:
    """Newton's step −H⁻¹g solves a quadratic at once, and walks into a saddle; damped by −(H + δI)⁻¹g
    with H + δI positive definite it leaves it. L-BFGS approximates H from gradients. On a small
    network both beat gradient descent, step for step."""
    surface = SURFACES["valley"].function
    start = vector(-1.8, 0.35)
    g, H = gradient_and_hessian(surface(start), [start])
    yield compare(
        "the valley (condition 100): one undamped Newton step ends at",
        [0.0, 0.0],
        start + damped_newton_step(g, H, 0.0),
    )
    saddle = SURFACES["saddle"]
    start = vector(*saddle.start)
    g, H = gradient_and_hessian(saddle.function(start), [start])
    yield compare("the saddle: the plain step −H⁻¹g ends at", [0.0, 0.0], start - torch.linalg.solve(H, g))
    path = race(saddle, partial(Newton, damping=0.5), 1.0, steps=10)
    values = saddle.function(path)
    yield holds(
        "the saddle: f after 10 damped steps",
        "below 0, and falling",
        [float(values[0]), float(values[-1])],
        values[-1] < 0 and bool((values.diff() < 0).all()),
    )
    data = load(MoonsConfig(name="moons", n_samples=400, noise=0.25)).to(CPU, F64)
    ends = {}
    for name, make in (
        ("gradient descent, η = 1", lambda p: torch.optim.SGD(p, lr=1.0)),
        ("L-BFGS", lambda p: torch.optim.LBFGS(p, max_iter=40, line_search_fn="strong_wolfe")),
        ("Newton, damped", lambda p: Newton(p, damping=1e-2)),
    ):
        ends[name] = _train_moons(data, make)
    first = next(iter(ends.values()))
    for name, loss in ends.items():
        what = f"a network of 32 parameters, training loss after 40 steps: {name}"
        if loss == first:
            yield holds(what, "below log 2, a guess", loss, loss < math.log(2))
        else:
            yield holds(what, f"below {first:.4f}", loss, loss < first)


def _train_moons(data: Data, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> float:
    net = FFN([2, 6, 2], HiddenConfig(name="lecture", hidden=[6], activation="tanh"), 0, F64)
    optimizer = make(list(net.parameters()))

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(net(data.train.x), data.train.y)

    def closure() -> Any:
        value = loss()
        if not isinstance(optimizer, Newton):
            optimizer.zero_grad()
            value.backward()
        return value

    for _ in range(1 if isinstance(optimizer, torch.optim.LBFGS) else 40):  # L-BFGS makes its 40 in one call
        optimizer.step(closure)
    return float(loss().detach())


# --- figures --------------------------------------------------------------------------------------------

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B0A000")
"""Okabe and Ito's palette, which colour-blind people can tell apart; its yellow darkened for white paper."""


def _contours(axes: Any, surface: Surface) -> None:
    low1, high1, low2, high2 = surface.window
    a, b = torch.linspace(low1, high1, 121, dtype=F64), torch.linspace(low2, high2, 121, dtype=F64)
    grid = torch.stack(torch.meshgrid(a, b, indexing="ij"), -1)
    values = surface.function(grid)
    levels = torch.quantile(values.flatten(), torch.linspace(0, 1, 22, dtype=F64)).unique()
    axes.contour(a, b, values.T, levels=levels.tolist(), colors="0.75", linewidths=0.7)
    axes.set(xlim=(low1, high1), ylim=(low2, high2), xlabel="θ1", ylabel="θ2")


def _draw_paths(axes: Any, surface: Surface, paths: dict[str, Tensor]) -> None:
    _contours(axes, surface)
    for k, ((who, path), colour) in enumerate(zip(paths.items(), COLOURS, strict=False)):
        width = 4.0 if k == 0 and len(paths) == 2 else 1.5  # of two paths the second may lie on the first
        axes.plot(path[:, 0], path[:, 1], color=colour, lw=width, label=who)
        axes.plot(path[-1, 0], path[-1, 1], "o", color=colour, ms=4)
    axes.plot(*surface.start, "k*", ms=10)


def _paths(surface: Surface, paths: dict[str, Tensor]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    axes = figure.subplots()
    _draw_paths(axes, surface, paths)
    axes.set_title(f"f = {surface.formula}; ★ is the start")
    axes.legend()
    return figure


def _race_figure(all_paths: dict[str, dict[str, Tensor]], curves: dict[str, list[float]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.6), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    for axes, (name, paths) in zip(panels, all_paths.items(), strict=False):
        _draw_paths(axes, SURFACES[name], paths)
        axes.set_title(f"{name}: {SURFACES[name].formula}, 150 steps")
    for (who, curve), colour in zip(curves.items(), COLOURS, strict=False):
        panels[3].plot(range(1, len(curve) + 1), curve, color=colour, lw=1.5, label=who)
    panels[3].set(
        yscale="log",
        xlabel="step (full batch)",
        ylabel="training loss (nats)",
        title="the digits network, one start",
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(
        "★ start, ● after the last step; learning rates set by hand for each panel: this ranks nothing"
    )
    return figure
