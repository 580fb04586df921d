"""The kernels: mini-batch steps, and the evaluation of rows, of a whole network in one call each.

numba turns them into LLVM's text, once on a machine; `plan.py` says what the arrays hold. Arrays are plain
pointers. Arithmetic is IEEE's, and every sum has its order written here, so that bits do not depend on the
processor.
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

Pointer = Any
"""To numbers: float32 or float64."""
Integers = Any
"""A pointer to int64."""

inner = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""A function that only compiled code calls. (With Python's error model a division would check for 0.)"""


class Net(NamedTuple):
    """What `Plan` laid out, as the kernels see it."""

    n_layers: int
    b: int
    """Rows of a chunk, whole registers of them."""
    lanes: int
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
    function: int
    """Addresses of loops: σ, σ', the loss."""
    derivative: int
    loss: int
    H: Pointer
    """All activations, and the gradients by them."""
    one: int
    """1, as a variable: for a number that is written out numba would compile a function anew."""


@inner
def net_of(plan: Integers, H: Pointer) -> Net:
    """The plan's integers by name, in the order in which `Plan` writes them."""
    n_layers, b, lanes, function, derivative, loss, one = (
        plan[0],
        plan[1],
        plan[2],
        plan[3],
        plan[4],
        plan[5],
        plan[6],
    )
    widths = offset(plan, HEADER)
    room = offset(widths, n_layers + 1)
    h = offset(room, n_layers + 1)
    h_bar = offset(h, n_layers + 1)
    g_bar = offset(h_bar, n_layers + 1)
    rows = offset(g_bar, 3)
    return Net(
        n_layers, b, lanes, widths, room, h, h_bar, g_bar, g_bar[2], rows, function, derivative, loss, H, one
    )  # fmt: skip


@inner
def product(
    A: Pointer, a: int, a_row: int, a_k: int,
    V: Pointer, v: int, v_row: int, n_k: int,
    out: Pointer, o: int, o_row: int, n_rows: int, n_columns: int,
    lanes: int, add: bool,
) -> None:  # fmt: skip
    """out[r, :] = Σ_k A[r, k] V[k, :], or += with `add`, k from first to last.

    A[r, k] is read at a + r a_row + k a_k, one number at a time; V[k, :] at v + k v_row and out[r, :] at
    o + r o_row, whole registers at a time, for which V's rows have room.
    """
    last = n_rows - 1
    for row in range(0, n_rows, ROWS):
        column = 0
        while n_columns - column > lanes:
            tile = tile_zero(A, BLOCKS)
            if add:
                tile = tile_load(tile, out, o + column, o_row, row, last, n_columns - column)
            for k in range(n_k):
                tile = tile_madd(tile, A, a + k * a_k, a_row, row, last, V, v + k * v_row + column)
            tile_store(tile, out, o + column, o_row, row, last, n_columns - column)
            column += BLOCKS * lanes
        if column < n_columns:
            single = tile_zero(A, 1)
            if add:
                single = tile_load(single, out, o + column, o_row, row, last, n_columns - column)
            for k in range(n_k):
                single = tile_madd(single, A, a + k * a_k, a_row, row, last, V, v + k * v_row + column)
            tile_store(single, out, o + column, o_row, row, last, n_columns - column)


@inner
def transpose_all(
    source: Pointer,
    starts: Integers,
    n_rows: int,
    n_columns: int,
    lanes: int,
    out: Pointer,
    o: int,
    o_row: int,
) -> None:
    """out[c, r] = source[starts[r] + c], c < n_columns, where `out` has room for whole squares."""
    r = 0
    while r < n_rows:  # not range(), which would check that its step is not 0
        c = 0
        while c < n_columns:
            transpose(source, starts, r, c, n_columns - c, out, o + c * o_row + r, o_row)
            c += lanes
        r += lanes


@inner
def forward(net: Net, θ: Pointer, x: Pointer, starts: Integers) -> None:
    """h⁰ = x's rows at `starts`; layer by layer h̄ = [h, 1] [W; b] and h = σ(h̄), to the logits h̄."""
    H, b, lanes, one, at = net.H, net.b, net.lanes, net.one, 0
    transpose_all(x, starts, b, net.widths[0], lanes, H, net.h[0], b)
    ones = net.h[0] + net.widths[0] * b
    for r in range(b):
        H[ones + r] = 1
    for k in range(1, net.n_layers + 1):
        n_in, n_out = net.widths[k - 1], net.widths[k]
        product(
            θ, at, one, n_out, H, net.h[k - 1], b, n_in + 1, H, net.h_bar[k], b, n_out, b, lanes, one < 0
        )  # fmt: skip
        if k < net.n_layers:
            h_bar, h = offset(H, net.h_bar[k]), offset(H, net.h[k])
            call(net.function, h_bar, h, h, h, n_out * b, 0)
        at += (n_in + 1) * n_out


@inner
def backward(net: Net, θ: Pointer, g: Pointer, P: int, add: bool) -> None:
    """From the last layer down: g = [h, 1]ᵀ ḡ of its [W; b], or += with `add`; ḡ below = ḡ Wᵀ ⊙ σ'(h̄).

    ḡ of the last layer lies where its h̄ was.
    """
    H, b, lanes, one, at, g_bar = net.H, net.b, net.lanes, net.one, P, net.h_bar[net.n_layers]
    for k in range(net.n_layers, 0, -1):
        n_in, n_out, wide = net.widths[k - 1], net.widths[k], net.room[k]
        at -= (n_in + 1) * n_out
        transpose_all(offset(H, g_bar), net.rows, n_out, b, lanes, H, net.turned, wide)
        product(
            H, net.h[k - 1], b, one, H, net.turned, wide, b, g, at, n_out, n_in + 1, n_out, lanes, add
        )  # fmt: skip
        if k > 1:
            below = net.g_bar[k & 1]
            product(θ, at, n_out, one, H, g_bar, b, n_out, H, below, b, n_in, b, lanes, one < 0)
            h_bar, h = offset(H, net.h_bar[k - 1]), offset(H, net.h[k - 1])
            call(net.derivative, offset(H, below), h_bar, h, h, n_in * b, 0)
            g_bar = below


@inner
def losses_of(net: Net, labels: Integers, weights: Pointer, losses: Pointer) -> None:
    """The rows' losses; the logits z become ∂(Σ weight · loss)/∂z."""
    b, z = net.b, offset(net.H, net.h_bar[net.n_layers])
    for r in range(b):
        losses[r] = z[labels[r] * b + r]
    call(net.loss, z, weights, losses, losses, b, net.widths[net.n_layers])
    for r in range(b):
        z[labels[r] * b + r] -= weights[r]


@inner
def squares(x: Pointer, count: int, like: Pointer) -> float:
    """Σ x², in float64."""
    tile = tile_zero(like, 1)
    for i in range(0, count, 32):
        tile = tile_squares(tile, x, i, count - i)
    return tile_sum(tile)


@inner
def penalise(net: Net, θ: Pointer, g: Pointer, l2: float, like: Pointer) -> float:
    """λ Σ‖W‖², whose gradient is added to g; b has no part in it."""
    at, total, two_l2 = 0, 0.0, rounded(θ, 2 * l2)
    for k in range(net.n_layers):
        n = net.widths[k] * net.widths[k + 1]
        W, g_W = offset(θ, at), offset(g, at)
        total += squares(W, n, like)
        for i in range(n):
            g_W[i] += two_l2 * W[i]
        at += n + net.widths[k + 1]
    return l2 * total


@inner
def measure(θ: Pointer, g: Pointer, before: Pointer, P: int, like: Pointer, norms: Pointer) -> None:
    """The squares of ‖g‖, ‖θ‖ after the step, ‖θ after − before‖, ‖θ‖ before it; `before` is overwritten."""
    norms[3] = squares(before, P, like)
    for i in range(P):
        before[i] = θ[i] - before[i]
    norms[0], norms[1], norms[2] = squares(g, P, like), squares(θ, P, like), squares(before, P, like)


def train(
    plan: Integers, θ: Pointer, g: Pointer, S: Pointer, before: Pointer, H: Pointer,
    weights: Pointer, each: Pointer, labels: Integers, starts: Integers,
    P: int, P_room: int, batch: int, rule: int, n_coefficients: int, l2: float,
    x: Pointer, y: Integers, c: Pointer, rows: Integers, n_rows: int,
    begin: int, count: int, step: int, last_step: int, log_every: int, losses: Pointer, norms: Pointer,
) -> int:  # fmt: skip
    """`count` steps, from the rows at `begin` of the epoch's `n_rows` on; gives how many were made.

    It stops after a step whose objective is not finite. `step` steps were made
    before. Squares of norms are written for steps that divide by `log_every`, the run's last, and one that
    is not finite.
    """
    old = flush_denormals()
    net = net_of(plan, H)
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
        call(rule, θ, g, S, offset(c, done * n_coefficients), P_room, P_room)
        if wanted:
            measure(θ, g, before, P, losses, norms)
            norms = offset(norms, 4)
        begin = end
        done += 1
    restore_denormals(old)
    return done


def evaluate(
    plan: Integers, θ: Pointer, H: Pointer, weights: Pointer, each: Pointer, labels: Integers,
    starts: Integers, x: Pointer, y: Integers, n: int, logits: Pointer, total: Pointer,
) -> int:  # fmt: skip
    """The logits of n rows, and in total[0] the sum of their losses, from first to last."""
    old = flush_denormals()
    net = net_of(plan, H)
    b, n_classes, z = net.b, net.widths[net.n_layers], offset(H, net.h_bar[net.n_layers])
    total[0] = 0.0
    first = 0
    while first < n:
        full = min(b, n - first)
        for r in range(b):
            row = first + r if r < full else first
            labels[r], starts[r], weights[r] = y[row], row * net.widths[0], 0.0
        forward(net, θ, x, starts)
        for r in range(full):
            for j in range(n_classes):
                logits[(first + r) * n_classes + j] = z[j * b + r]
        losses_of(net, labels, weights, each)
        for r in range(full):
            total[0] += each[r]
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
