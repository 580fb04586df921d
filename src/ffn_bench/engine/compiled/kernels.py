"""The kernels: mini-batch steps, and the evaluation of rows, of a whole network in one call each.

They are the loops over layers, chunks, batches and steps; what they call by address (`FUNCTIONS`) computes.
numba compiles them, once on a machine. Arrays are plain pointers; `plan.py` says what they hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from ffn_bench.engine.compiled.instructions import (
    call,
    flush_denormals,
    is_given,
    offset,
    restore_denormals,
    rounded,
)
from ffn_bench.engine.compiled.plan import FUNCTIONS, HEADER

Pointer = Any
"""To numbers: float32 or float64."""
Integers = Any
"""A pointer to int64."""

FUNCTION, DERIVATIVE, LOSS, RULE, PRODUCT, TRANSPOSE, SQUARES = range(len(FUNCTIONS))

inner = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""A function that only compiled code calls. (With Python's error model a division would check for 0.)"""


class Net(NamedTuple):
    """What `Plan` laid out, as the kernels see it."""

    n_layers: int
    b: int
    """Rows of a chunk, whole registers of them."""
    widths: Integers
    room: Integers
    """Each width + 1, filled up to whole registers."""
    h: Integers
    """Where h⁰ … begin in H, h̄¹ …, the two ḡ, and one ḡ transposed."""
    h_bar: Integers
    g_bar: Integers
    turned: int
    rows: Integers
    """Where each row of an array [features][b] begins."""
    code: Integers
    """Addresses of compiled functions, in the order of `FUNCTIONS`."""
    H: Pointer
    """All activations, and the gradients by them."""


@inner
def net_of(plan: Integers, H: Pointer) -> Net:
    """The plan's integers by name, in the order in which `Plan` writes them."""
    n_layers = plan[0]
    widths = offset(plan, HEADER)
    room = offset(widths, n_layers + 1)
    h = offset(room, n_layers + 1)
    h_bar = offset(h, n_layers + 1)
    g_bar = offset(h_bar, n_layers + 1)
    return Net(
        n_layers, plan[1], widths, room, h, h_bar, g_bar, g_bar[2], offset(g_bar, 3), offset(plan, 2), H
    )  # fmt: skip


@inner
def forward(net: Net, θ: Pointer, x: Pointer, starts: Integers) -> None:
    """h⁰ = x's rows at `starts`; layer by layer h̄ = [W; b]ᵀ [h; 1] and h = σ(h̄), to the logits h̄."""
    H, b, code, W = net.H, net.b, net.code, θ
    h, n_in = offset(H, net.h[0]), net.widths[0]
    call(code[TRANSPOSE], x, starts, h, b, n_in, b)
    ones = offset(h, n_in * b)
    for r in range(b):
        ones[r] = 1
    for k in range(1, net.n_layers + 1):
        n_out, h_bar = net.widths[k], offset(H, net.h_bar[k])
        call(code[PRODUCT], W, h, h_bar, 1, n_out, b, b, n_out, b, n_in + 1, 0)
        if k < net.n_layers:
            h = offset(H, net.h[k])
            call(code[FUNCTION], h_bar, h, h, h, n_out * b, 0)
        W, n_in = offset(W, (n_in + 1) * n_out), n_out


@inner
def backward(net: Net, θ: Pointer, g: Pointer, P: int, add: bool) -> None:
    """From the last layer down: ∂[W; b] = [h; 1] ḡᵀ, or += with `add`; ḡ below = W ḡ ⊙ σ'(h̄).

    ḡ of the last layer lies where its h̄ was.
    """
    H, b, code, at = net.H, net.b, net.code, P
    g_bar, turned = offset(H, net.h_bar[net.n_layers]), offset(H, net.turned)
    for k in range(net.n_layers, 0, -1):
        n_in, n_out, wide = net.widths[k - 1], net.widths[k], net.room[k]
        at -= (n_in + 1) * n_out
        h = offset(H, net.h[k - 1])
        call(code[TRANSPOSE], g_bar, net.rows, turned, n_out, b, wide)
        call(code[PRODUCT], h, turned, offset(g, at), b, 1, wide, n_out, n_in + 1, n_out, b, add)
        if k > 1:
            below = offset(H, net.g_bar[k & 1])
            call(code[PRODUCT], offset(θ, at), g_bar, below, n_out, 1, b, b, n_in, b, n_out, 0)
            call(code[DERIVATIVE], below, offset(H, net.h_bar[k - 1]), h, h, n_in * b, 0)
            g_bar = below


@inner
def losses_of(
    net: Net,
    t: Pointer,
    n_targets: int,
    starts: Integers,
    weights: Pointer,
    losses: Pointer,
    targets: Pointer,
) -> None:
    """The rows' losses; the logits z become ∂(Σ weight · loss)/∂z.

    `targets` has the labels, as numbers; or with n_targets > 0 it gets the targets in t, whose rows have the
    numbers that stand in `starts`.
    """
    b, z = net.b, offset(net.H, net.h_bar[net.n_layers])
    if n_targets > 0:
        for r in range(b):
            starts[r] *= n_targets
        call(net.code[TRANSPOSE], t, starts, targets, b, n_targets, b)
    call(net.code[LOSS], z, weights, losses, targets, b, net.widths[net.n_layers])


@inner
def penalise(net: Net, θ: Pointer, g: Pointer, l2: float, total: Pointer) -> float:
    """λ Σ‖W‖², whose gradient is added to g; b has no part in it."""
    at, penalty, two_l2 = 0, 0.0, rounded(θ, 2 * l2)
    for k in range(net.n_layers):
        n = net.widths[k] * net.widths[k + 1]
        W, g_W = offset(θ, at), offset(g, at)
        call(net.code[SQUARES], W, total, n)
        penalty += total[0]
        for i in range(n):
            g_W[i] += two_l2 * W[i]
        at += n + net.widths[k + 1]
    return l2 * penalty


@inner
def penalise_sizes(net: Net, θ: Pointer, g: Pointer, l1: float) -> float:
    """λ₁ Σ|W|, whose gradient, λ₁ times the signs, is added to g; b has no part in it."""
    at, penalty, step = 0, 0.0, rounded(θ, l1)
    for k in range(net.n_layers):
        n = net.widths[k] * net.widths[k + 1]
        W, g_W = offset(θ, at), offset(g, at)
        for i in range(n):
            penalty += abs(W[i])
            if W[i] > 0:
                g_W[i] += step
            elif W[i] < 0:
                g_W[i] -= step
        at += n + net.widths[k + 1]
    return l1 * penalty


@inner
def measure(net: Net, θ: Pointer, g: Pointer, before: Pointer, P: int, norms: Pointer) -> None:
    """The squares of ‖g‖, ‖θ‖ after the step, ‖θ after − before‖, ‖θ‖ before it; `before` is overwritten."""
    squares = net.code[SQUARES]
    call(squares, g, norms, P)
    call(squares, θ, offset(norms, 1), P)
    call(squares, before, offset(norms, 3), P)
    for i in range(P):
        before[i] = θ[i] - before[i]
    call(squares, before, offset(norms, 2), P)


def train(
    plan: Integers, θ: Pointer, g: Pointer, S: Pointer, before: Pointer, H: Pointer,
    weights: Pointer, each: Pointer, targets: Pointer, starts: Integers,
    P: int, P_room: int, batch: int, n_coefficients: int, n_targets: int, l2: float, l1: float,
    x: Pointer, y: Integers, t: Pointer, w: Pointer, c: Pointer, rows: Integers, n_rows: int,
    begin: int, count: int, step: int, last_step: int, log_every: int, losses: Pointer, norms: Pointer,
) -> int:  # fmt: skip
    """`count` steps, from the rows at `begin` of the epoch's `n_rows` on; gives how many were made.

    Rows are classified, by the labels y; or with n_targets > 0 the network's outputs are to be t,
    `[n, n_targets]`. What each row counts is in w, if that is an address. It stops after a step whose
    objective is not finite. `step` steps were made before. Squares of norms are written for steps that divide
    by `log_every`, for the run's last, and for one that is not finite.
    """
    old = flush_denormals()
    net = net_of(plan, H)
    b, done, finite, weighted = net.b, 0, True, is_given(w)
    while finite and done < count:
        end = min(begin + batch, n_rows)
        loss = 0.0
        first = begin
        while first < end:
            full = min(b, end - first)
            for r in range(b):  # filled up with the first row, of weight 0
                row = rows[first + r] if r < full else rows[first]
                starts[r] = row * net.widths[0]
                weights[r] = 1 / (end - begin) if r < full else 0.0
                if n_targets == 0:
                    targets[r] = y[row]
            if weighted:
                for r in range(full):
                    weights[r] *= w[rows[first + r]]
            forward(net, θ, x, starts)
            if n_targets > 0:
                for r in range(b):
                    starts[r] = rows[first + r] if r < full else rows[first]
            losses_of(net, t, n_targets, starts, weights, each, targets)
            for r in range(full):
                loss += each[r] * w[rows[first + r]] if weighted else each[r]
            backward(net, θ, g, P, first > begin)
            first += b
        loss /= end - begin
        objective = loss
        if l2 != 0:
            objective += penalise(net, θ, g, l2, offset(losses, 2 * done))
        if l1 != 0:
            objective += penalise_sizes(net, θ, g, l1)
        losses[2 * done], losses[2 * done + 1] = loss, objective
        finite = np.isfinite(objective)
        number = step + done + 1
        wanted = number % log_every == 0 or number == last_step or not finite
        if wanted:
            for i in range(P):
                before[i] = θ[i]
        call(net.code[RULE], θ, g, S, offset(c, done * n_coefficients), P_room, P_room)
        if wanted:
            measure(net, θ, g, before, P, norms)
            norms = offset(norms, 4)
        begin = end
        done += 1
    restore_denormals(old)
    return done


def evaluate(
    plan: Integers, θ: Pointer, H: Pointer, weights: Pointer, each: Pointer, targets: Pointer,
    starts: Integers, n_targets: int, x: Pointer, y: Integers, t: Pointer, w: Pointer, n: int,
    logits: Pointer, total: Pointer,
) -> int:  # fmt: skip
    """The logits of n rows, and in total[0] the sum of their losses, from first to last, each times its
    weight."""
    old = flush_denormals()
    net = net_of(plan, H)
    b, n_outputs, z = net.b, net.widths[net.n_layers], offset(H, net.h_bar[net.n_layers])
    weighted = is_given(w)
    total[0] = 0.0
    first = 0
    while first < n:
        full = min(b, n - first)
        for r in range(b):
            row = first + r if r < full else first
            starts[r], weights[r] = row * net.widths[0], 0.0
            if n_targets == 0:
                targets[r] = y[row]
        forward(net, θ, x, starts)
        for r in range(full):
            for j in range(n_outputs):
                logits[(first + r) * n_outputs + j] = z[j * b + r]
        if n_targets > 0:
            for r in range(b):
                starts[r] = first + r if r < full else first
        losses_of(net, t, n_targets, starts, weights, each, targets)
        for r in range(full):
            total[0] += each[r] * w[first + r] if weighted else each[r]
        first += b
    restore_denormals(old)
    return n


def signature(kernel: str, dtype: str) -> Any:
    """numba's types of a kernel's arguments and result, read off its annotations."""
    integer, number = types.int64, getattr(types, dtype)
    kinds = {
        "Integers": types.CPointer(integer),
        "Pointer": types.CPointer(number),
        "int": integer,
        "float": types.float64,
    }
    doubles = dict.fromkeys(("losses", "norms", "total"), types.CPointer(types.float64))
    function = {"train": train, "evaluate": evaluate}[kernel]
    annotations = dict(function.__annotations__)
    result = kinds[annotations.pop("return")]
    return result(*(doubles.get(name, kinds[kind]) for name, kind in annotations.items()))
