"""L2 to L5 and L11: derivatives, layers, the objective, back-propagation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.functional import jacobian as autograd_jacobian
from torch.nn import functional as F

from ffn_bench.data.rows import Data
from ffn_bench.engine.build import check_memory
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, show, topic, vector
from ffn_bench.model import backprop
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import by_autograd
from ffn_bench.model.initialisation import check_names
from ffn_bench.model.network import FFN
from ffn_bench.model.tensor_losses import penalty


def _f(x: Tensor) -> Tensor:
    return torch.stack([x[0] ** 2 + x[1] ** 2, x[1] ** 2 + x[2] ** 2 * x[1]])


def _g(u: Tensor) -> Tensor:
    return torch.stack([u[0] * u[1], torch.sin(u[0])])


@topic("jacobian", "L2", "Derivatives and the chain rule")
def jacobian(context: Context) -> Iterator[Row]:
    """The Jacobian of f: Rᵐ → Rⁿ is n × m, and for h = g∘f it is J_h(x) = J_g(f(x)) J_f(x). Here
    f(x) = (x1² + x2², x2² + x3² x2), and g(u) = (u1 u2, sin u1)."""
    x = vector(1.0, 2.0, 3.0)
    J = autograd_jacobian(_f, x)
    yield holds("shape of J, f: R³ → R²", "2 × 3", " × ".join(map(str, J.shape)), J.shape == (2, 3))
    yield compare("J at x = (1, 2, 3)", [[2.0, 4.0, 0.0], [0.0, 13.0, 12.0]], J)
    x1, x2, x3 = x.tolist()
    by_formula = [[2 * x1, 2 * x2, 0.0], [0.0, 2 * x2 + x3**2, 2 * x2 * x3]]
    yield compare("J by the formula [[2x1, 2x2, 0], [0, 2x2 + x3², 2 x2 x3]]", by_formula, J)
    product = autograd_jacobian(_g, _f(x)) @ J
    yield compare("J of g∘f = J_g(f(x)) J_f(x)", product, autograd_jacobian(lambda v: _g(_f(v)), x))


@topic("softmax", "L3", "The output layer")
def softmax(context: Context) -> Iterator[Row]:
    """With p = softmax(h) and l = −log p_y, the gradient is ∂l/∂h = p − 1_y."""
    h = vector(2.0, -1.0, 0.5, 0.0)
    y = 2
    p = h.softmax(0)
    loss = -torch.log(p[y])
    (gradient,) = torch.autograd.grad(loss, h)
    one = F.one_hot(torch.tensor(y), len(h)).to(F64)
    yield compare("∂l/∂h = p − 1_y for y = 3", p - one, gradient)
    yield compare("its entries sum to 0", 0.0, gradient.sum())
    yield compare(
        "l = −log p_y is PyTorch's cross-entropy", F.cross_entropy(h[None], torch.tensor([y])), loss
    )


_W = [[0.7266, 0.7925, 0.7952, 0.2159], [0.3108, 0.1950, 0.6448, 0.6367], [0.0521, 0.2200, 0.5038, 0.9020]]
_B = [0.3059, 0.2612, 0.9326, 0.5597]
_DH_DX = [
    [0.1570, 0.0671, 0.0113],
    [0.1501, 0.0369, 0.0417],
    [0.1121, 0.0909, 0.0710],
    [0.0416, 0.1228, 0.1740],
]
ROUNDED = 1.5e-4
"""The lecture prints four decimals, W and b among them, so a recomputed entry may be off by 1e-4."""


@topic("layer", "L4", "An intermediate layer")
def layer(context: Context) -> Iterator[Row]:
    """For h = σ(h̄), h̄ = xW + b: ∂h/∂h̄ = diag(σ'(h̄)), ∂h̄/∂x = Wᵀ, ∂h/∂x = diag(σ'(h̄)) Wᵀ; the
    sigmoid has σ' = h(1−h). The lecture's numbers, printed with four decimals, at x = (1, −1, 1)."""
    x, W, b = vector(1.0, -1.0, 1.0), torch.tensor(_W, dtype=F64), torch.tensor(_B, dtype=F64)
    σ = ACTIVATIONS["sigmoid"]
    h_bar = x @ W + b
    h = σ.function(h_bar)
    slope = σ.derivative(h_bar, h)
    yield compare("h̄ = xW + b", [0.7737, 1.0787, 1.5868, 1.0409], h_bar, ROUNDED)
    yield compare("h = σ(h̄)", [0.6843, 0.7463, 0.8302, 0.7390], h, ROUNDED)
    yield compare("σ'(h̄) = h(1−h)", [0.2160, 0.1894, 0.1410, 0.1929], slope, ROUNDED)
    by_formula = torch.diag(slope) @ W.T
    for k in range(4):
        yield compare(f"∂h{k + 1}/∂x", _DH_DX[k], by_formula[k], ROUNDED)
    by_autograd_too = autograd_jacobian(lambda v: σ.function(v @ W + b), x)
    yield compare("∂h/∂x: largest |formula − autograd|", 0.0, (by_formula - by_autograd_too).abs().max())
    for name, activation in ACTIVATIONS.items():
        z = torch.linspace(-3, 3, 61, dtype=F64, requires_grad=True)
        value = activation.function(z)
        (expected,) = torch.autograd.grad(value.sum(), z)
        off = (activation.derivative(z, value) - expected).abs()
        off[30] = 0  # relu and its kin have a corner at 0
        yield compare(f"σ' of {name}: largest |formula − autograd|", 0.0, off.max())


@topic("objective", "L5", "The objective")
def objective(context: Context) -> Iterator[Row]:
    """J(θ) = Ω(θ) + mean loss, Ω(θ) = λ Σ‖W^k‖²: weights only, no biases. The empirical loss and the
    regularised objective are two different curves."""
    layers, x, y = _small_network()
    λ, σ = 0.1, ACTIVATIONS["tanh"]
    plain, with_l2 = (by_autograd(layers, x, y, σ, l2) for l2 in (0.0, λ))
    by_hand = λ * sum(float(w) ** 2 for W, _ in layers for w in W.flatten())
    yield compare("J − loss = λ Σ of the squared weights", by_hand, with_l2.objective - with_l2.loss)
    yield holds(
        "the two curves differ", "J > loss", f"{with_l2.objective:.4f} > {with_l2.loss:.4f}", by_hand > 0
    )
    for k, (W, _) in enumerate(layers):
        dW = with_l2.layers[k][0] - plain.layers[k][0]
        yield compare(f"layer {k + 1}: ∂Ω/∂W − 2λW, largest entry", 0.0, (dW - 2 * λ * W).abs().max())
        db = with_l2.layers[k][1] - plain.layers[k][1]
        yield compare(f"layer {k + 1}: ∂Ω/∂b, largest entry", 0.0, db.abs().max())
    yield compare("Ω of the layers", float(penalty(layers)) * λ, by_hand)


def _small_network() -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    widths = [4, 5, 3]
    layers = [
        (torch.randn(i, o, generator=generator, dtype=F64), torch.randn(o, generator=generator, dtype=F64))
        for i, o in ((widths[0], widths[1]), (widths[1], widths[2]))
    ]
    x = torch.randn(8, 4, generator=generator, dtype=F64)
    return layers, x, torch.randint(3, (8,), generator=generator)


def _own(context: Context) -> tuple[Data[Tensor], list[int]]:
    """The user's data and the widths of their network. Raises `UserError` where they cannot be used."""
    check_names(context.model)
    data = load_tensors(context.data)
    widths = [data.n_features, *context.model.widths(), len(data.classes)]
    check_memory(widths, "float64")
    return data, widths


@topic("backprop", "L11", "Back-propagation, layer by layer", check=_own)
def backpropagation(context: Context) -> Iterator[Row]:
    """ḡ^L = p − 1_y; ∂l/∂W^k = (h^{k−1})ᵀ ḡ^k, ∂l/∂b^k = ḡ^k; g^{k−1} = ḡ^k (W^k)ᵀ, ḡ^{k−1} = g^{k−1}
    diag(σ'(h̄^{k−1})); and, left to the student, ∂l/∂x = ḡ^1 (W^1)ᵀ; averaged over the mini-batch. On
    your own network with model=… data=…: relative differences from autograd and from central
    differences, in float64."""
    data, widths = _own(context)
    net = FFN(widths, context.model, context.seed, F64)
    x, y = data.train.x[:32], data.train.y[:32]
    layers = [(W.detach(), b.detach()) for W, b in net.layers]
    hand = backprop.by_hand(layers, x, y, net.activation)
    auto = by_autograd(layers, x, y, net.activation)
    yield compare("loss of the mini-batch", float(auto.loss), float(hand.loss))
    for k, (by_hand, by_auto) in enumerate(zip(hand.layers, auto.layers, strict=True)):
        for name, manual, automatic, parameter in zip("Wb", by_hand, by_auto, layers[k], strict=True):
            shape = "×".join(map(str, parameter.shape))
            what = f"layer {k + 1}, ∂l/∂{name} ({shape})"
            yield _relative(f"{what}: from autograd", manual, automatic, 1e-12)
            rows, differences = _central_differences(layers, parameter, x, y, net)
            yield _relative(f"{what}: from central differences", manual.flatten()[rows], differences, 1e-5)
    yield _relative("∂l/∂x: from autograd", hand.x, auto.x, 1e-12)


def _relative(what: str, manual: Tensor, reference: Tensor, tolerance: float) -> Row:
    # A gradient that is 0 (dead units) has no relative error; the absolute one must then be 0.
    error = float((manual - reference).norm() / reference.norm().clamp(min=1e-9))
    return holds(f"{what}", f"≤ {tolerance:.0e}", show(error), error <= tolerance)


def _central_differences(
    layers: list[tuple[Tensor, Tensor]], parameter: Tensor, x: Tensor, y: Tensor, net: FFN
) -> tuple[Tensor, Tensor]:
    """(l(θ + ε) − l(θ − ε))/2ε for up to 40 entries of one parameter: their positions and the quotients."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(parameter.numel(), generator=generator)[:40]
    ε = 1e-6
    quotients = []
    for row in rows:
        values = []
        for sign in (1, -1):
            parameter.view(-1)[row] += sign * ε
            values.append(float(backprop.loss_of(layers, x, y, net.activation)))
            parameter.view(-1)[row] -= sign * ε
        quotients.append((values[0] - values[1]) / (2 * ε))
    return rows, torch.tensor(quotients, dtype=F64)
