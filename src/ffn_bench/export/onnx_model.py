"""A trained network as an ONNX model: rows of a table in, class names and probabilities out, or targets."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ffn_bench.data.rows import Array
from ffn_bench.errors import RESOURCE, UserError
from ffn_bench.export import onnx_encoding
from ffn_bench.export.expression import Expression, written
from ffn_bench.export.onnx_encoding import encoded
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.run_folder.fitted import Fitted
from ffn_bench.run_folder.trained_network import TrainedNetwork

PACKAGES = ("onnx", "onnxruntime")
OPSET, ML_OPSET, IR = 17, 3, 8
"""Versions of ONNX's operators, its operators for machine learning, and its file, which every onnxruntime
since 1.12 reads."""
OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "negative": "Neg", "abs": "Abs",
    "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less", "less_equal": "LessOrEqual",
    "logical_not": "Not", "logical_and": "And", "logical_or": "Or", "where": "Where", "isnan": "IsNaN",
    "relu": "Relu", "exp": "Exp", "log": "Log", "sigmoid": "Sigmoid", "tanh": "Tanh", "sqrt": "Sqrt",
    "sign": "Sign", "maximum": "Max", "minimum": "Min",
}  # fmt: skip
"""Operations that ONNX has as they are."""
TOLERANCE = 1e-5
"""By how much probabilities may differ from those of `ffn-predict`, and targets, in their standard deviation
in the training rows."""


def check_installed() -> None:
    """Raise `UserError` (status 5) where a package is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        what = f"a file .onnx needs {' and '.join(missing)}, not installed here"
        raise UserError("to", what, "pip install 'ffn-bench[onnx]'", RESOURCE)


class Graph:
    """The nodes of a model, in the order in which they are computed. Names that are `taken` are not used."""

    def __init__(self, dtype: str, taken: Collection[str] = ()) -> None:
        self.dtype, self._taken = dtype, taken
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def free(self, name: str) -> str:
        """The name, or one like it that is not taken."""
        while name in self._taken:
            name += "_"
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; the name of what it computes."""
        from onnx import helper

        output = self.free(output or f"{operator.lower()}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values: Array, name: str = "") -> str:
        """Add numbers, or texts; their name."""
        from onnx import TensorProto, helper, numpy_helper

        name = self.free(name or f"constant_{len(self.constants)}")
        if values.dtype == object:
            texts = [text.encode() for text in values.tolist()]
            self.constants.append(helper.make_tensor(name, TensorProto.STRING, values.shape, texts))
        else:
            self.constants.append(numpy_helper.from_array(values, name))
        return name

    def formula(self, formula: Any, symbol: str) -> str:
        """Add what computes a formula of the numbers named `symbol`."""
        if not isinstance(formula, Expression):
            return self.constant(np.array(formula, self.dtype))
        operation = formula.operation
        if operation == "symbol":
            return symbol
        inputs = [self.formula(argument, symbol) for argument in formula.arguments]
        if operation == "expm1":
            return self.node("Sub", self.node("Exp", *inputs), self.constant(np.array(1, self.dtype)))
        if operation == "log1p":
            return self.node("Log", self.node("Add", *inputs, self.constant(np.array(1, self.dtype))))
        if operation == "erf":  # onnxruntime has it in float32 only
            return self.cast(self.node("Erf", self.cast(inputs[0], "float32")), self.dtype)
        return self.node(OPERATORS[operation], *inputs)

    def cast(self, name: str, dtype: str) -> str:
        """The same numbers in another precision."""
        from onnx import TensorProto

        kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
        return self.node("Cast", name, to=kinds[dtype])


def model(network: TrainedNetwork, card: str) -> bytes:
    """The model, checked: `rows`, float64 `[n, n_features]`, or columns that have to be encoded, one by one,
    give `label`, texts `[n]`, and `probabilities` `[n, n_classes]` in the run's dtype; in a regression
    `prediction`, float64 `[n, n_targets]`."""
    import onnx
    from onnx import TensorProto, helper

    fitted, dtype = network.fitted, network.config.dtype
    formula = written(ACTIVATIONS[network.config.model.activation].function)
    columns, encoding = fitted.columns, fitted.encoding
    graph = Graph(dtype, ("rows",) if encoding is None else columns)
    rows, inputs = "rows", [helper.make_tensor_value_info("rows", TensorProto.DOUBLE, ["n", len(columns)])]
    if encoding is not None:
        rows, inputs = encoded(graph, columns, encoding), onnx_encoding.inputs(columns, encoding)
    mean, scale = graph.constant(fitted.mean, "mean"), graph.constant(fitted.scale, "scale")
    h = graph.node("Div", graph.node("Sub", rows, mean), scale)
    h = graph.cast(h, dtype) if dtype != "float64" else h
    for k, (W, b) in enumerate(network.weights.layers):
        h = graph.formula(formula, h) if k else h
        weights = graph.constant(np.ascontiguousarray(W), f"W{k + 1}")
        h = graph.node("Gemm", h, weights, graph.constant(np.ascontiguousarray(b), f"b{k + 1}"))
    outputs = _targets(graph, h, network) if fitted.targets else _classes(graph, h, network)
    whole = helper.make_graph(graph.nodes, "feed_forward_network", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    opsets += [] if encoding is None else [helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    made = helper.make_model(whole, opset_imports=opsets, ir_version=IR, producer_name="ffn-bench")
    named = {"targets": fitted.targets} if fitted.targets else {"classes": fitted.classes}
    names = {**named, "columns": columns}
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in names.items()}
    helper.set_model_props(made, {"model_card": card, **texts})
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    _check(content, network)
    return content


def _classes(graph: Graph, h: str, network: TrainedNetwork) -> list[Any]:
    """Add what makes a class and probabilities of logits; the model's outputs."""
    from onnx import TensorProto, helper

    fitted, dtype, criterion = network.fitted, network.config.dtype, network.criterion
    if criterion.is_softmax:
        graph.node("Softmax", h, output="probabilities", axis=1)
    else:
        zero, one = (graph.constant(np.array(value, dtype)) for value in (0, 1))
        f = graph.node("Sigmoid", h) if criterion.output == "sigmoid" else h
        f = graph.node("Clip", f, zero, one)
        total = graph.node("ReduceSum", f, graph.constant(np.array([1])), keepdims=1)
        some = graph.node("Greater", total, zero)
        over_sum = graph.node("Div", f, graph.node("Where", some, total, one))
        same = graph.constant(np.full(len(fitted.classes), 1 / len(fitted.classes), dtype))
        graph.node("Where", some, over_sum, same, output="probabilities")
    classes = graph.constant(np.array(fitted.classes, object), "classes")
    graph.node("Gather", classes, graph.node("ArgMax", h, axis=1, keepdims=0), output="label")
    kind = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    return [
        helper.make_tensor_value_info(graph.free("label"), TensorProto.STRING, ["n"]),
        helper.make_tensor_value_info(graph.free("probabilities"), kind, ["n", len(fitted.classes)]),
    ]


def _targets(graph: Graph, h: str, network: TrainedNetwork) -> list[Any]:
    """Add what makes targets in their own unit of outputs; the model's output."""
    from onnx import TensorProto, helper

    fitted = network.fitted
    h = graph.cast(h, "float64") if network.config.dtype != "float64" else h
    scaled = graph.node("Mul", h, graph.constant(fitted.target_scale, "target_scale"))
    graph.node("Add", scaled, graph.constant(fitted.target_mean, "target_mean"), output="prediction")
    shape: list[str | int | None] = ["n", len(fitted.targets)]
    return [helper.make_tensor_value_info(graph.free("prediction"), TensorProto.DOUBLE, shape)]


def run(content: bytes, given: Mapping[str, Array]) -> list[Any]:
    """The model's outputs for rows, as onnxruntime computes them from its file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


def feed(fitted: Fitted, x: Array) -> dict[str, Array]:
    """Rows `x [n, n_columns]`, categories as their codes, as a model takes them."""
    if fitted.encoding is None:
        return {"rows": x.astype(np.float64)}
    return onnx_encoding.feed(fitted.columns, fitted.encoding, x)


def _check(content: bytes, network: TrainedNetwork) -> None:
    """Raise `RuntimeError` unless onnxruntime predicts what we do, for rows like those of the training."""
    fitted = network.fitted
    if fitted.encoding is None:
        normal = np.random.default_rng(0).normal(size=(256, len(fitted.columns)))
        rows = fitted.mean + fitted.scale * normal
    else:
        rows = onnx_encoding.drawn(fitted.encoding, 256, fitted.mean, fitted.scale)
    ours, (*labels, theirs) = network.predictions(rows), run(content, feed(fitted, rows))
    mistake = RuntimeError("onnxruntime predicts otherwise than ffn-predict: nothing is written")
    if fitted.targets:
        if (np.abs(ours - theirs) / fitted.target_scale).max() > TOLERANCE:
            raise mistake
        return
    first, second = np.sort(ours, axis=1)[:, :-3:-1].T
    certain = first - second > 2 * TOLERANCE
    named = np.array(fitted.classes, object)[ours.argmax(axis=1)]
    if np.abs(ours - theirs).max() > TOLERANCE or (named != labels[0])[certain].any():
        raise mistake
