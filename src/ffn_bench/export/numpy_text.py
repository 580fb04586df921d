"""A trained network as one Python file that needs NumPy alone, to be read and to be shipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ffn_bench.data.plain_csv import DELIMITERS
from ffn_bench.data.rows import Array
from ffn_bench.export.expression import Expression, written
from ffn_bench.export.numpy_encoding import ENCODE, constants
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.run_folder.trained_network import TrainedNetwork

SIGNS = {
    "add": ("+", 2), "subtract": ("-", 2), "multiply": ("*", 3), "divide": ("/", 3),
    "greater": (">", 1), "greater_equal": (">=", 1), "less": ("<", 1), "less_equal": ("<=", 1),
    "logical_and": ("&", 1.5), "logical_or": ("|", 1.25),
}  # fmt: skip
"""Operators of Python and how closely they bind; comparisons stand in brackets beside & and |."""
UNARY = {"negative": "-", "logical_not": "~"}
HELPERS = {
    "sigmoid": (
        "def sigmoid(h):",
        '    """1 / (1 + exp(-h)), by an exponential that cannot overflow."""',
        "    e = np.exp(-np.abs(h))",
        "    return np.where(h < 0, e, 1) / (1 + e)",
    ),
    "erf": (
        "def erf(h):",
        '    """The error function, which NumPy lacks."""',
        "    return np.vectorize(math.erf, otypes=[float])(h).astype(h.dtype)",
    ),
}
"""Functions that NumPy does not have."""
NUMBERS_A_LINE = 8
READ_ROWS = '''def read_rows(file):
    """The rows of a CSV file with a header: [n, columns], in the order of COLUMNS."""
    first = file.readline()
    found = {d: set(next(csv.reader([first], delimiter=d), [])) for d in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: len(found[d] & set(COLUMNS)))
    reader = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader, [])]
    for name in COLUMNS:
        if header.count(name) != 1:
            has = f"has {header.count(name)} columns {name!r}, not one"
            raise ValueError(f"line 1: {has} (cells are separated by {delimiter!r})")
    places = [header.index(name) for name in COLUMNS]
    rows = []
    for cells in reader:
        if not cells:  # a blank line
            continue
        line = f"line {reader.line_num}"
        if len(cells) != len(header):
            raise ValueError(f"{line}: has {len(cells)} cells where the header has {len(header)}")
        rows.append([READ_CELL for k in places])
    if not rows:
        raise ValueError("has a header and no rows")
    return ROWS
'''
"""`READ_CELL` and `ROWS` are put in."""
READ_NUMBER = '''def read_number(cell, where):
    """The finite number that a cell holds; in a text its digits are those of ASCII, without "_"."""
    is_text = isinstance(cell, str)
    if is_text and not cell.strip():
        raise ValueError(f"{where}: blank cell")
    try:
        if is_text and ("_" in cell or not cell.isascii()):
            raise ValueError
        number = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {cell!r} is not a number") from None
    if not np.isfinite(number):
        raise ValueError(f"{where}: {number} is not a finite number")
    return number
'''
CHECK_CELL = '''def check_cell(cell, k, where):
    """A cell of column k, which must be what it is to hold."""
    read_cell(cell, k, where)
    return cell
'''
"""What reads it, where columns have to be encoded."""
MAIN = '''def one_line(label):
    """The label, its line breaks as \\n where it has some."""
    return label if label.splitlines() == [label] else repr(label)[1:-1]


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python FILE rows.csv    prints the class of each row; - is standard input")
    where = path = sys.argv[1]
    try:
        with open(0 if path == "-" else path, newline="", encoding="utf-8-sig") as file:
            labels = predict(read_rows(file))
        where = "standard output"
        with open(1, "w", encoding="utf-8", closefd=False) as output:
            for label in labels:
                print(one_line(label), file=output)
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"{where}: {getattr(error, 'strerror', None) or error}")


if __name__ == "__main__":
    main()
'''
"""The end of the file: what its command does."""
OF_TARGETS = {
    """            for label in labels:
                print(one_line(label), file=output)
""": """            for row in predicted:
                print(*row.tolist(), sep=",", file=output)
""",
    "labels = predict": "predicted = predict",
    "prints the class of each row": "prints the targets of each row",
    MAIN[MAIN.index("def one_line") : MAIN.index("def main")]: "",
}
"""What is otherwise in a regression."""


def source(network: TrainedNetwork, card: str) -> str:
    """The text of the file, with a model card as its docstring."""
    config, fitted = network.config, network.fitted
    formula = written(ACTIVATIONS[config.model.activation].function)
    has_hidden = len(network.weights.layers) > 1
    encoding = fitted.encoding
    cells, inputs = ("numbers", "columns") if encoding is None else ("see `encode`,", "inputs")
    used = _operations(formula) if has_hidden else set()
    used |= {network.criterion.output} if fitted.classes else set()
    helpers = [name for name in HELPERS if name in used]
    docstring = card.replace("\\", "\\\\").replace('"', '\\"')
    classes = "CLASSES", map(repr, fitted.classes)
    lines = [
        f'"""{docstring.rstrip()}',
        '"""',
        "",
        "import csv",
        "import itertools",
        *(["import math"] if "erf" in helpers else []),
        "import sys",
        "",
        "import numpy as np",
        "",
        *_list(*(("TARGETS", map(repr, fitted.targets)) if fitted.targets else classes)),
        *_list("COLUMNS", map(repr, fitted.columns)),
        f"DELIMITERS = {getattr(config.data, 'delimiter', ',') or DELIMITERS!r}",
        "",
        "",
    ]
    for name in helpers:
        lines += [*HELPERS[name], "", ""]
    if has_hidden:
        lines += [
            "def activation(h):",
            f'    """What a hidden layer does to its numbers: {config.model.activation}."""',
            f"    return {_text(formula)}",
            "",
            "",
        ]
    lines += [
        *([] if encoding is None else [*constants(encoding), "", "", *ENCODE.rstrip().split("\n"), "", ""]),
        '@np.errstate(over="ignore", invalid="ignore")  # of which the ValueError tells',
        "def outputs(X):",
        f'    """What the last layer gives, [n, {network.weights.widths[-1]}], for rows X, '
        f"[n, {len(fitted.columns)}]: {cells} in the order of COLUMNS.",
        "",
        "    Raises ValueError for numbers that are not finite, or too large for this network.",
        '    """',
        "    X = np.asarray(X, dtype=np.float64)" if encoding is None else "    X = encode(X)",
        f"    h = ((X - MEAN) / SCALE).astype(np.{config.dtype})",
    ]
    if has_hidden:
        lines += ["    for W, b in LAYERS[:-1]:", "        h = activation(h @ W + b)"]
    lines += [
        "    W, b = LAYERS[-1]",
        "    h = h @ W + b",
        "    sound = np.isfinite(X).all(axis=1) & np.isfinite(h).all(axis=1)",
        "    if not sound.all():",
        '        raise ValueError(f"row {sound.argmin()} has numbers that are not finite, or too large")',
        "    return h",
        "",
        "",
        *(_of_targets(network) if fitted.targets else _of_classes(network)),
        "",
        "",
        f"# The standardisation of the {inputs} that the network was trained with.",
        f"MEAN = {_array(fitted.mean, '')}",
        f"SCALE = {_array(fitted.scale, '')}",
        *(_target_standardisation(network) if fitted.targets else []),
        "",
        "# Weights W [inputs, outputs] and biases b [outputs] of each layer.",
        "LAYERS = [",
    ]
    for W, b in network.weights.layers:
        lines += ["    (", f"        {_array(W, ' ' * 8)},", f"        {_array(b, ' ' * 8)},", "    ),"]
    lines += [
        "]",
        "",
        _command(encoding is not None, bool(fitted.targets)),
    ]
    return "\n".join(lines)


def _command(encoded: bool, of_targets: bool) -> str:
    """The end of the file."""
    where = 'f"{line}, column {header[k]!r}"'
    cell, rows, check = f"read_number(cells[k], {where})", "np.array(rows)", READ_NUMBER
    loop = "for k in places"
    if encoded:
        cell, rows, check = f"check_cell(cells[k], j, {where})", "rows", f"{READ_NUMBER}\n\n{CHECK_CELL}"
        loop = "for j, k in enumerate(places)"
    read = READ_ROWS.replace("READ_CELL for k in places", f"{cell} {loop}").replace("ROWS", rows)
    end = MAIN
    for of_classes, instead in OF_TARGETS.items() if of_targets else ():
        end = end.replace(of_classes, instead)
    return "\n\n".join([read, check, end])


def _of_classes(network: TrainedNetwork) -> list[str]:
    """The functions that predict a class."""
    n_classes, output = len(network.fitted.classes), network.criterion.output
    ways = {
        "softmax": [
            "    h = outputs(X)",
            "    e = np.exp(h - h.max(axis=1, keepdims=True))",
            "    return e / e.sum(axis=1, keepdims=True)",
        ],
        "sigmoid": ["    p = sigmoid(outputs(X))"],
        "identity": ["    p = np.clip(outputs(X), 0, 1)"],
    }
    over_sum = [
        "    total = p.sum(axis=1, keepdims=True)",
        f"    return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / {n_classes}).astype(p.dtype)",
    ]
    return [
        "def predict_proba(X):",
        f'    """Probabilities of CLASSES, [n, {n_classes}], for rows X: see `outputs`."""',
        *ways[output],
        *(over_sum if output != "softmax" else []),
        "",
        "",
        "def predict(X):",
        '    """The most probable class of each row."""',
        "    return [CLASSES[k] for k in outputs(X).argmax(axis=1)]",
    ]


def _of_targets(network: TrainedNetwork) -> list[str]:
    """The function that predicts targets."""
    n_targets = len(network.fitted.targets)
    return [
        "def predict(X):",
        f'    """TARGETS in their own unit, [n, {n_targets}], for rows X: see `outputs`."""',
        "    return outputs(X).astype(np.float64) * TARGET_SCALE + TARGET_MEAN",
    ]


def _target_standardisation(network: TrainedNetwork) -> list[str]:
    """The numbers of the targets."""
    fitted = network.fitted
    return [
        "",
        "# That of the targets.",
        f"TARGET_MEAN = {_array(fitted.target_mean, '')}",
        f"TARGET_SCALE = {_array(fitted.target_scale, '')}",
    ]


def _text(formula: Any, binds: float = 0) -> str:
    """A formula as Python, in brackets where what is around it binds as closely."""
    if not isinstance(formula, Expression):
        return repr(formula)
    operation, arguments = formula.operation, formula.arguments
    if operation == "symbol":
        return "h"
    if operation in SIGNS:
        sign, own = SIGNS[operation]
        left, right = (_text(argument, own + k / 10) for k, argument in enumerate(arguments))
        text = f"{left} {sign} {right}"
        return f"({text})" if own < binds or (own < 2 and binds) else text
    if operation in UNARY:
        return f"{UNARY[operation]}{_text(arguments[0], 4)}"
    inner = ", ".join(_text(argument) for argument in arguments)
    if operation == "relu":
        return f"np.maximum({inner}, 0)"
    return f"{operation}({inner})" if operation in HELPERS else f"np.{operation}({inner})"


def _operations(formula: Any) -> set[str]:
    """All that occur in a formula."""
    if not isinstance(formula, Expression):
        return set()
    return {formula.operation}.union(*map(_operations, formula.arguments))


def _list(name: str, texts: Iterable[str]) -> Iterator[str]:
    """A list as Python, in lines."""
    cells = list(texts)
    one_line = f"{name} = [{', '.join(cells)}]"
    if len(one_line) <= 100:
        yield one_line
        return
    yield f"{name} = ["
    for first in range(0, len(cells), NUMBERS_A_LINE):
        yield f"    {', '.join(cells[first : first + NUMBERS_A_LINE])},"
    yield "]"


def _array(values: Array, indent: str) -> str:
    """An array as Python, to the last bit, in lines."""
    dtype = f", dtype=np.{values.dtype}"
    if values.ndim == 1:
        return f"np.array({_numbers(values, indent)}{dtype})"
    rows = (f"{indent}    {_numbers(row, indent + '    ')}," for row in values)
    return "\n".join(["np.array([", *rows, f"{indent}]{dtype})"])


def _numbers(values: Array, indent: str) -> str:
    """Numbers as Python's list: the fewest digits that read back to the same bits."""
    cells = [str(value) for value in values]
    if len(cells) <= NUMBERS_A_LINE:
        return f"[{', '.join(cells)}]"
    lines = (
        f"{indent}    {', '.join(cells[first : first + NUMBERS_A_LINE])},"
        for first in range(0, len(cells), NUMBERS_A_LINE)
    )
    return "\n".join(["[", *lines, f"{indent}]"])
