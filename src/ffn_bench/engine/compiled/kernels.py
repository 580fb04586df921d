"""The kernels: mini-batch steps and evaluation of a whole network, in one call each.

They are written for numba, which turns them into LLVM's text; `plan.py` says what the arrays hold. Arithmetic is
IEEE's, and every sum has an order of its own that is written here: bits do not depend on the processor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from ffn_bench.engine.compiled.denormals import flush_denormals, restore_denormals
from ffn_bench.engine.compiled.plan import HEADER
from ffn_bench.engine.compiled.tiles import (
    BLOCKS,
    ROWS,
    call,
    offset,
    rounded,
    tile_load,
    tile_madd,
    tile_squares,
    tile_store,
    tile_sum,
    tile_zero,
    transpose,
)

inner = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Functions that only compiled code calls. With Python's error model a division would check for 0."""


class Net(NamedTuple):
    """What `Plan` laid out, as the kernels see it."""

    L: int
    """Layers."""
    b: int
    """Rows of a chunk, whole registers of them."""
    lanes: int
    widths: Any
    room: Any
    """Each width + 1, filled up to whole registers."""
    h: Any
    """Where h⁰ … begin, h̄¹ …, …"""
    h_bar: Any
    g_bar: Any
    turned: int
    rows: Any
    """Where each row of an array [features][b] begins."""
    function: int
    derivative: int
    loss: int
    H: Any
    """All activations and gradients by them."""
    one: int
    """1, as a variable: numba would compile a function once for each value that is written out."""


@inner
def net_of(plan, H):
    """The plan's integers by name, in the order in which `Plan` writes them."""
    L, b = plan[0], plan[1]
    widths = offset(plan, HEADER)
    room = offset(widths, L + 1)
    h = offset(room, L + 1)
    h_bar = offset(h, L + 1)
    g_bar = offset(h_bar, L + 1)
    rows = offset(g_bar, 3)
    return Net(L, b, plan[2], widths, room, h, h_bar, g_bar, g_bar[2], rows, plan[3], plan[4], plan[5], H, plan[11])


@inner
def product(A, a, a_row, a_k, V, v, v_row, K, out, o, o_row, rows, cols, lanes, add):
    """out[r, :cols] (+)= Σ_k A[r, k] V[k, :], k from first to last, where V's rows have room for whole registers."""
    last = rows - 1
    for row in range(0, rows, ROWS):
        col = 0
        while cols - col > lanes:
            tile = tile_zero(A, BLOCKS)
            if add:
                tile = tile_load(tile, out, o + col, o_row, row, last, cols - col)
            for k in range(K):
                tile = tile_madd(tile, A, a + k * a_k, a_row, row, last, V, v + k * v_row + col)
            tile_store(tile, out, o + col, o_row, row, last, cols - col)
            col += BLOCKS * lanes
        if col < cols:
            single = tile_zero(A, 1)
            if add:
                single = tile_load(single, out, o + col, o_row, row, last, cols - col)
            for k in range(K):
                single = tile_madd(single, A, a + k * a_k, a_row, row, last, V, v + k * v_row + col)
            tile_store(single, out, o + col, o_row, row, last, cols - col)


@inner
def transpose_all(source, starts, rows, cols, lanes, out, o, o_row):
    """out[c, r] = source[starts[r] + c]; rows and columns of `out` have room for whole squares."""
    r = 0
    while r < rows:  # not range(), which would check that its step is not 0
        c = 0
        while c < cols:
            transpose(source, starts, r, c, cols - c, out, o + c * o_row + r, o_row)
            c += lanes
        r += lanes


@inner
def forward(net, θ, x, starts):
    """h⁰ = x's rows at `starts`; then layer by layer h̄ = [h, 1] [W; b] and h = σ(h̄). Logits are the last h̄."""
    H, b, one, at = net.H, net.b, net.one, 0
    transpose_all(x, starts, b, net.widths[0], net.lanes, H, net.h[0], b)
    ones = net.h[0] + net.widths[0] * b
    for r in range(b):
        H[ones + r] = 1
    for k in range(1, net.L + 1):
        I, O = net.widths[k - 1], net.widths[k]
        product(θ, at, one, O, H, net.h[k - 1], b, I + 1, H, net.h_bar[k], b, O, b, net.lanes, one < 0)
        if k < net.L:
            h_bar, h = offset(H, net.h_bar[k]), offset(H, net.h[k])
            call(net.function, h_bar, h, h, h, O * b, 0)
        at += (I + 1) * O


@inner
def backward(net, θ, g, P, add):
    """g (+)= the gradient: of [W; b] [h, 1]ᵀ ḡ, and ḡ ← ḡ Wᵀ ⊙ σ'(h̄). ḡ of the last layer lies where its h̄ was."""
    H, b, one, at, g_bar = net.H, net.b, net.one, P, net.h_bar[net.L]
    for k in range(net.L, 0, -1):
        I, O, wide = net.widths[k - 1], net.widths[k], net.room[k]
        at -= (I + 1) * O
        transpose_all(offset(H, g_bar), net.rows, O, b, net.lanes, H, net.turned, wide)
        product(H, net.h[k - 1], b, one, H, net.turned, wide, b, g, at, O, I + 1, O, net.lanes, add)
        if k > 1:
            below = net.g_bar[k & 1]
            product(θ, at, O, one, H, g_bar, b, O, H, below, b, I, b, net.lanes, one < 0)
            h_bar, h = offset(H, net.h_bar[k - 1]), offset(H, net.h[k - 1])
            call(net.derivative, offset(H, below), h_bar, h, h, I * b, 0)
            g_bar = below


@inner
def losses_of(net, labels, weights, losses):
    """The rows' losses; logits z become Σ weight · ∂ loss/∂z."""
    b, z = net.b, offset(net.H, net.h_bar[net.L])
    for r in range(b):
        losses[r] = z[labels[r] * b + r]
    call(net.loss, z, weights, losses, losses, b, net.widths[net.L])
    for r in range(b):
        z[labels[r] * b + r] -= weights[r]


@inner
def squares(x, count, like):
    """Σ x², in float64."""
    tile = tile_zero(like, 1)
    for i in range(0, count, 32):
        tile = tile_squares(tile, x, i, count - i)
    return tile_sum(tile)


@inner
def penalise(net, θ, g, l2, like):
    """λ Σ‖W‖², whose gradient is added to g; b has no part in it."""
    at, total, two_l2 = 0, 0.0, rounded(θ, 2 * l2)
    for k in range(net.L):
        n = net.widths[k] * net.widths[k + 1]
        W, g_W = offset(θ, at), offset(g, at)
        total += squares(W, n, like)
        for i in range(n):
            g_W[i] += two_l2 * W[i]
        at += n + net.widths[k + 1]
    return l2 * total


@inner
def measure(θ, g, before, P, like, norms):
    """The squares of ‖g‖, ‖θ‖ after the step, ‖θ after − before‖, ‖θ‖ before it; `before` is overwritten."""
    norms[3] = squares(before, P, like)
    for i in range(P):
        before[i] = θ[i] - before[i]
    norms[0], norms[1] = squares(g, P, like), squares(θ, P, like)
    norms[2] = squares(before, P, like)


def train(
    plan, θ, g, S, c, x, y, rows, H, before, weights, each, labels, starts,
    n_rows, begin, count, step, last_step, log_every, l2, losses, norms,
):  # fmt: skip
    """`count` steps from the rows at `begin` of the epoch's `n_rows` on; gives the number of steps that were made.

    Fewer are made where the objective of one is not finite: that one is the last. `step` steps were made before.
    Squares of norms are computed at steps that divide by `log_every`, at the run's last, and at one that is not finite.
    """
    old = flush_denormals()
    net = net_of(plan, H)
    rule, K, batch, P, P_room = plan[6], plan[7], plan[8], plan[9], plan[10]
    b, done, finite = net.b, 0, True
    while finite and done < count:
        end = min(begin + batch, n_rows)
        loss = 0.0
        first = begin
        while first < end:
            full = min(b, end - first)
            for r in range(b):  # filled up with the first row, of weight 0
                row = rows[first + r] if r < full else rows[first]
                labels[r], starts[r] = y[row], row * net.widths[0]
                weights[r] = 1 / (end - begin) if r < full else 0.0
            forward(net, θ, x, starts)
            losses_of(net, labels, weights, each)
            for r in range(full):
                loss += each[r]
            backward(net, θ, g, P, first > begin)
            first += b
        loss /= end - begin
        objective = loss
        if l2 != 0:
            objective += penalise(net, θ, g, l2, losses)
        losses[2 * done], losses[2 * done + 1] = loss, objective
        finite = np.isfinite(objective)
        number = step + done + 1
        wanted = number % log_every == 0 or number == last_step or not finite
        if wanted:
            for i in range(P):
                before[i] = θ[i]
        call(rule, θ, g, S, offset(c, done * K), P_room, P_room)
        if wanted:
            measure(θ, g, before, P, losses, norms)
            norms = offset(norms, 4)
        begin = end
        done += 1
    restore_denormals(old)
    return done


def evaluate(plan, θ, x, y, n, H, weights, each, labels, starts, logits, total):
    """The logits of all n rows, and in total[0] the sum of their losses, from first to last."""
    old = flush_denormals()
    net = net_of(plan, H)
    b, C, z = net.b, net.widths[net.L], offset(H, net.h_bar[net.L])
    total[0] = 0.0
    first = 0
    while first < n:
        full = min(b, n - first)
        for r in range(b):
            row = first + r if r < full else first
            labels[r], starts[r], weights[r] = y[row], row * net.widths[0], 0.0
        forward(net, θ, x, starts)
        for r in range(full):
            for j in range(C):
                logits[(first + r) * C + j] = z[j * b + r]
        losses_of(net, labels, weights, each)
        for r in range(full):
            total[0] += each[r]
        first += b
    restore_denormals(old)
    return n


def signature(kernel: str, dtype: str) -> Any:
    """The types of a kernel's arguments and result."""
    i, f, numbers = types.int64, types.float64, types.CPointer(getattr(types, dtype))
    I, F, T = types.CPointer(i), types.CPointer(f), numbers
    if kernel == "train":
        return i(I, T, T, T, T, T, I, I, T, T, T, T, I, I, i, i, i, i, i, i, f, F, F)
    return i(I, T, T, I, i, T, T, T, I, I, T, F)
