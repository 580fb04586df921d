"""How the columns of a table become a network's inputs, as nodes of an ONNX model: an input for each column.

It computes what `data.encoding` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ffn_bench.data.columns import UNSEEN
from ffn_bench.data.encoding import EncodedColumn, Encoding
from ffn_bench.data.rows import Array

if TYPE_CHECKING:
    from ffn_bench.export.onnx_model import Graph

BLANK = -2
"""The code of a blank cell of texts."""
ABSENT = "\0"
"""A text that no table has: a category that is none of the known ones."""


def inputs(columns: Sequence[str], encoding: Encoding) -> list[Any]:
    """The model's inputs, one of each column, `[n, 1]`: float64, or texts."""
    from onnx import TensorProto, helper

    kinds = {True: TensorProto.STRING, False: TensorProto.DOUBLE}
    return [
        helper.make_tensor_value_info(name, kinds[column.holds == "category"], ["n", 1])
        for name, column in zip(columns, encoding.columns, strict=True)
    ]


def encoded(graph: Graph, columns: Sequence[str], encoding: Encoding) -> str:
    """Add what makes the network's inputs of the columns; the name of the matrix `[n, n_inputs]`, float64."""
    parts = []
    for name, column in zip(columns, encoding.columns, strict=True):
        parts += (_category if column.holds == "category" else _number)(graph, name, column)
    return graph.node("Concat", *parts, axis=1)


def _number(graph: Graph, name: str, column: EncodedColumn) -> list[str]:
    if column.fill is None:
        return [name]
    blank = graph.node("IsNaN", name)
    filled = graph.node("Where", blank, graph.constant(np.array(column.fill)), name)
    return [filled, graph.cast(blank, "float64")] if column.indicator else [filled]


def _category(graph: Graph, name: str, column: EncodedColumn) -> list[str]:
    codes = graph.node(
        "LabelEncoder",
        name,
        domain="ai.onnx.ml",
        keys_strings=[*column.categories, ""],
        values_int64s=[*range(len(column.categories)), BLANK],
        default_int64=int(UNSEEN),
    )
    blank = graph.node("Equal", codes, graph.constant(np.array(BLANK)))
    if column.fill is not None:
        codes = graph.node("Where", blank, graph.constant(np.array(int(column.fill))), codes)
    places = graph.constant(np.arange(len(column.categories)).reshape(1, -1))
    known = graph.cast(graph.node("Equal", codes, places), "float64")
    return [known, graph.cast(blank, "float64")] if column.indicator else [known]


def feed(columns: Sequence[str], encoding: Encoding, x: Array) -> dict[str, Array]:
    """Rows `x [n, n_columns]`, categories as their codes, as what the model takes."""
    given = {}
    for name, column, values in zip(columns, encoding.columns, x.T, strict=True):
        if column.holds != "category":
            given[name] = values[:, None].copy()
            continue
        texts = np.array([*column.categories, "", ABSENT], object)
        codes = np.where(np.isnan(values), len(column.categories), values).astype(np.int64)
        given[name] = texts[codes][:, None]  # an unseen one, −1, is the last text
    return given


def drawn(encoding: Encoding, n: int, mean: Array, scale: Array) -> Array:
    """Rows like those of the training, `[n, n_columns]`: some cells blank where they may be, some categories
    unseen. `mean` and `scale` are those of the inputs."""
    draws = np.random.default_rng(0)
    x, at = np.empty((n, len(encoding.columns))), 0
    for k, column in enumerate(encoding.columns):
        if column.holds == "category":
            x[:, k] = draws.integers(-1, len(column.categories), n)
        elif column.holds == "boolean":
            x[:, k] = draws.integers(0, 2, n)
        else:
            place = at if len(mean) > 1 else 0
            x[:, k] = mean[place] + scale[place] * draws.normal(size=n)
        if column.fill is not None:
            x[draws.random(n) < 0.1, k] = np.nan
        at += column.width
    return x
