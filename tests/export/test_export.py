"""Exported networks predict what PyTorch does, in clean processes, for every activation; what they carry."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

import ffn_bench.export.command
from conftest import MNIST, call, needs_mnist
from ffn_bench.data.rows import Array
from ffn_bench.export import card, numpy_text, onnx_model, sequential
from ffn_bench.export.expression import FUNCTIONS, Expression, written
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.array_numbers import ArrayNumbers
from ffn_bench.run_folder.files import MANIFEST
from ffn_bench.run_folder.fitted import Fitted
from ffn_bench.run_folder.trained_network import TrainedNetwork, data_again
from trained_runs import ODD_LABELS, as_another, by_pytorch, load, rows_of_test, train_on

FORMS = ("model.onnx", "model.safetensors", "model.pt", "model.py")
DATA = ["digits", "csv", pytest.param("mnist", marks=needs_mnist)]

ALONE = """
import sys

class OnlyThese:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, *ALLOWED}:
            raise ModuleNotFoundError(f"{name} is not to be needed")

sys.meta_path.insert(0, OnlyThese())
"""
"""Lets a process import nothing but Python's own modules and those of ALLOWED."""


REQUIRED = ("numpy", "torch", "torchgen", "functorch", *(metadata.requires("torch") or ()))
WITH_TORCH = {re.split(r"[^\w-]", name)[0].replace("-", "_") for name in REQUIRED} | {"mpmath", "markupsafe"}
"""PyTorch and what it needs."""


def alone(allowed: set[str], code: str, *arguments: Path, cwd: Path) -> str:
    """What a process prints that can import only these packages."""
    program = f"ALLOWED = {allowed!r}{ALONE}{code}"
    command = [sys.executable, "-I", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("exports")
    for data in ("digits", "csv", *(["mnist"] if (MNIST / "MNIST" / "raw").is_dir() else [])):
        train_on(data, here / data)
    return here


@pytest.fixture(scope="module")
def digits(folder: Path) -> TrainedNetwork:
    return load(folder / "digits")


Export = Callable[..., Any]


@pytest.fixture
def export(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    """The command, in an empty folder, on a run of `folder`."""
    monkeypatch.chdir(tmp_path)
    main = ffn_bench.export.command.main
    return lambda data, *arguments: call(
        main, "ffn-export", monkeypatch, capsys, f"run={folder / data}", *arguments
    )


@pytest.mark.parametrize("data", DATA)
def test_every_form_predicts_what_pytorch_does_on_every_test_row(
    folder: Path, data: str, export: Export, tmp_path: Path
) -> None:
    for name in FORMS:
        assert export(data, f"to={name}").code == 0
    network = load(folder / data)
    rows, y = rows_of_test(network)
    expected = by_pytorch(network, data_again(network.recorded).test.x)
    accuracy = (expected.argmax(1) == y).mean()
    assert accuracy == (json.loads((folder / data / "summary.json").read_text())["best"]["accuracy/test"])
    np.save(tmp_path / "rows.npy", rows)

    session = onnxruntime.InferenceSession("model.onnx")
    label, probabilities = session.run(None, {"rows": rows})
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
    assert label.tolist() == [network.fitted.classes[k] for k in expected.argmax(1)]

    load_rows = "\nimport numpy as np\nrows = np.load('rows.npy')\n"
    code = "sys.path.insert(0, '.')\nimport model\nnp.save('py.npy', model.predict_proba(rows))\n"
    code += "print(model.predict(rows)[:3])"
    assert alone({"numpy", "model"}, load_rows + code, cwd=tmp_path).strip() == str(label.tolist()[:3])
    np.testing.assert_allclose(np.load(tmp_path / "py.npy"), expected, rtol=0, atol=1e-5)

    text = (tmp_path / "model.card.md").read_text()
    lines = [line[4:] for line in text.partition("## To load it")[2].splitlines()]
    finish = "\nwith torch.no_grad():\n    np.save('pt.npy', probabilities(torch.from_numpy(rows)).numpy())"
    alone(WITH_TORCH, "\n".join(lines) + load_rows + finish, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "pt.npy"), expected, rtol=0, atol=1e-5)


def test_the_printed_lines_load_safetensors(folder: Path, export: Export, tmp_path: Path) -> None:
    for data in ("csv", "digits"):
        result = export(data, "to=model.safetensors")
        scope: dict[str, Any] = {}
        exec("import json\n" + result.out.partition("import json")[2], scope)
        network = load(folder / data)
        rows, _ = rows_of_test(network)
        with torch.no_grad():
            ours = scope["probabilities"](torch.from_numpy(rows)).numpy()
        np.testing.assert_allclose(ours, network.predictions(rows), rtol=0, atol=1e-6)
        assert scope["classes"] == list(network.fitted.classes)


def test_the_printed_lines_of_a_state_dict_leave_out_long_lists_only(export: Export, tmp_path: Path) -> None:
    printed = export("csv", "to=model.pt").out
    assert printed.partition("import torch")[2] in re.sub(
        "^    ", "", (tmp_path / "model.card.md").read_text(), flags=re.MULTILINE
    )
    assert "torch.tensor([...], dtype=torch.float64)  # 64 numbers, in model.card.md" in (
        export("digits", "to=model.pt").out
    )
    assert "[...]" not in (tmp_path / "model.card.md").read_text()


def test_the_python_file_predicts_from_a_table(folder: Path, export: Export, tmp_path: Path) -> None:
    assert export("csv", "to=model.py").code == 0
    code = "\nimport runpy\nrunpy.run_path('model.py', run_name='__main__')"
    labels = alone({"numpy"}, code, folder / "csv.csv", cwd=tmp_path).splitlines()
    network = load(folder / "csv")
    assert len(labels) == 400 and set(labels) <= set(ODD_LABELS)
    data = data_again(network.recorded)
    assert np.mean([label in network.fitted.classes for label in labels]) == 1
    assert len(data.test.y) == 60


BAD_TABLES = {
    "no such file": (None, "rows.csv: No such file or directory"),
    "empty": ("", "line 1: has 0 columns 'x0', not one (cells are separated by ',')"),
    "a column too few": ("x0,y\n1,2\n", "line 1: has 0 columns 'x1', not one"),
    "a column twice": ("x0,x1,x0\n1,2,3\n", "line 1: has 2 columns 'x0', not one"),
    "another delimiter": ("x0;x1\n1;2\n", "line 1: has 0 columns 'x0', not one (cells are separated by ',')"),
    "a header only": ("x0,x1\n", "has a header and no rows"),
    "a blank cell": ("x0,x1\n\n1, \n", "line 3, column 'x1': blank cell"),
    "text": ("x0,x1\n1,many\n", "line 2, column 'x1': 'many' is not a number"),
    "an underscore": ("x0,x1\n1_0,1\n", "line 2, column 'x0': '1_0' is not a number"),
    "digits of another script": ("x0,x1\n٣,1\n", "line 2, column 'x0': '٣' is not a number"),
    "no number": ("x0,x1\nnan,1\n", "line 2, column 'x0': nan is not a finite number"),
    "a number too large": ("x0,x1\n1,1\n1e300,1\n", "row 1 has numbers that are not finite, or too large"),
    "a short row": ("x0,x1\n1\n", "line 2: has 1 cells where the header has 2"),
    "an open quote": ('x0,x1\n1,"2\n', "unexpected end of data"),
    "not UTF-8": (b"x0,x1\n1,\xe9\n", "codec can't decode byte 0xe9"),
}


@pytest.fixture(scope="module")
def two_columns(digits: TrainedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python file of a network whose columns are x0 and x1, and one class has two lines."""
    network = as_another(digits, "tanh", "float32", 0)
    W, b = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    weights = dataclasses.replace(network.weights, layers=[(W, b)])
    fitted = Fitted(
        columns=("x0", "x1"), classes=("it's 0", "two\nlines"), mean=np.zeros(2), scale=np.full(2, 1e-30)
    )
    path = tmp_path_factory.mktemp("two") / "model.py"
    network = dataclasses.replace(network, weights=weights, fitted=fitted)
    path.write_text(numpy_text.source(network, "a card"))
    return path


@pytest.mark.parametrize("case", BAD_TABLES)
def test_the_python_file_says_in_one_line_what_is_wrong_with_a_table(
    two_columns: Path, case: str, tmp_path: Path
) -> None:
    content, text = BAD_TABLES[case]
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    command = [sys.executable, str(two_columns), "rows.csv"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("rows.csv: ") and text in done.stderr


@pytest.mark.parametrize(
    ("ends", "message"),
    {
        "": "",
        "> /dev/full": "standard output: No space left on device\n",
        ">&-": "standard output: Bad file descriptor\n",
        "| true": "standard output: Broken pipe\n",
    }.items(),
)
def test_the_python_file_reads_standard_input_and_writes_a_line_for_each_row(
    two_columns: Path, ends: str, message: str
) -> None:
    rows = "x1, x0\n0,1\n1,0\n"
    rows += "1,0\n" * 50_000 if ends == "| true" else ""
    command = ["bash", "-o", "pipefail", "-c", f'"$0" "$1" - {ends}', sys.executable, str(two_columns)]
    done = subprocess.run(command, input=rows, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (int(message != ""), message)
    assert done.stdout == ("" if ends else "it's 0\ntwo\\nlines\n")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_the_python_file_predicts_nothing_of_numbers_that_are_none(
    digits: TrainedNetwork, number: float
) -> None:
    """Also where its activation would make a finite number of an infinite one."""
    rows = np.zeros((4, 64))
    rows[3, 5] = number
    with pytest.raises(ValueError, match="row 3 has numbers that are not finite, or too large"):
        executed(numpy_text.source(as_another(digits, "relu", "float32"), "a card"), rows)


@pytest.mark.parametrize(
    ("name", "line"),
    {
        "model.py": "from model import predict, predict_proba  # or: python model.py rows.csv",
        "my-model.py": "python my-model.py rows.csv",
        "my model.py": "python 'my model.py' rows.csv",
    }.items(),
)
def test_the_printed_line_of_a_python_file_is_python_or_a_command(
    export: Export, name: str, line: str
) -> None:
    assert export("csv", f"to={name}").out.splitlines()[-1] == line


# --- every activation -----------------------------------------------------------------------------------


def executed(source: str, rows: Array) -> tuple[list[str], Array]:
    """What a Python file predicts."""
    scope: dict[str, Any] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), scope)
    return scope["predict"](rows), scope["predict_proba"](rows)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_depth_and_precision(
    digits: TrainedNetwork, activation: str, dtype: str, depth: int
) -> None:
    network = as_another(digits, activation, dtype, depth)
    rows = np.random.default_rng(0).normal(size=(500, len(network.fitted.columns))) * 5
    expected = by_pytorch(network, (rows / 2).astype(dtype))
    close: Any = {"rtol": 0, "atol": 1e-5 if dtype == "float32" or activation == "gelu" else 1e-12}
    np.testing.assert_allclose(network.predictions(rows), expected, **close)
    for labels, probabilities in (
        onnx_model.run(onnx_model.model(network, "a card"), {"rows": rows}),
        executed(numpy_text.source(network, "a card"), rows),
    ):
        assert probabilities.dtype == dtype
        np.testing.assert_allclose(probabilities, expected, **close)
        assert list(labels) == [network.fitted.classes[k] for k in probabilities.argmax(1)]
    scope: dict[str, Any] = {}
    load_nothing = re.sub(r"\nmodel.load_state_dict\(.*\)\n", "\n", sequential.code(network, "model.pt"))
    exec(load_nothing, scope)
    state = {name: torch.from_numpy(array) for name, array in sequential.state_dict(network).items()}
    scope["model"].load_state_dict(state)
    with torch.no_grad():
        theirs = scope["probabilities"](torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(theirs, expected, **close)


def _of_positive(name: str) -> Callable[[Any], Any]:
    return lambda h: getattr(abs(h) + 0.5, name)()


FORMULAS: dict[str, Callable[[Any], Any]] = {
    **{name: _of_positive(name) for name in FUNCTIONS[:-2] if name != "isnan"},
    "softsign": lambda h: h / (abs(h) + 1),
    "brackets": lambda h: 2 - (h - (1 - h)) / (3 / (h * h + 1)) * -h,
    "a sum of differences": lambda h: h - (h - 2) - (3 - (h + 1)),
    "either": lambda h: h.where((h > 1) | (h < -1), 0.0),
    "both": lambda h: h.where((h >= -1) & ~(h >= 1) & (h <= 0.5), h * 0.1),
    "no number": lambda h: h.where(~h.isnan(), 0.0) + h.square(),
    "larger and smaller": lambda h: h.maximum(0.5).minimum(abs(h)),
}  # fmt: skip
"""All that an activation may compute."""


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_what_its_function_computes(name: str) -> None:
    """As Python and as ONNX."""
    function, h = FORMULAS[name], np.random.default_rng(0).normal(size=200) * 2
    expected = np.asarray(function(h.view(ArrayNumbers)))
    formula = written(function)
    scope: dict[str, Any] = {"np": np, "h": h}
    exec("import math\n" + "\n".join(line for lines in numpy_text.HELPERS.values() for line in lines), scope)
    np.testing.assert_allclose(eval(numpy_text._text(formula), scope), expected, rtol=1e-14, atol=1e-15)

    graph = onnx_model.Graph("float64")
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.formula(formula, "h")], ["result"]))
    value = onnx.helper.make_tensor_value_info
    double = onnx.TensorProto.DOUBLE
    whole = onnx.helper.make_graph(
        graph.nodes, "g", [value("h", double, ["n"])], [value("result", double, ["n"])], graph.constants
    )
    opset = onnx.helper.make_opsetid("", onnx_model.OPSET)
    model = onnx.helper.make_model(whole, opset_imports=[opset], ir_version=onnx_model.IR)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    close: Any = {"rtol": 1e-6, "atol": 1e-6} if name == "erf" else {"rtol": 1e-13, "atol": 1e-15}
    np.testing.assert_allclose(session.run(None, {"h": h})[0], expected, **close)


def test_the_formulas_use_all_that_there_is() -> None:
    def operations(formula: Any) -> set[str]:
        if not isinstance(formula, Expression):
            return set()
        return {formula.operation}.union(*map(operations, formula.arguments))

    used = set().union(*(operations(written(function)) for function in FORMULAS.values()))
    assert used >= {*FUNCTIONS, *numpy_text.SIGNS, "logical_not", "where"}
    assert {*onnx_model.OPERATORS, "expm1", "log1p", "erf"} >= used - {"symbol"}


def test_a_branch_is_refused() -> None:
    with pytest.raises(TypeError, match="where"):
        written(lambda h: h if h > 0 else 0)
    with pytest.raises(AttributeError):
        written(lambda h: h.cosh())


def test_an_activation_that_pytorch_has_no_module_for_is_refused() -> None:
    with pytest.raises(ffn_bench.errors.UserError, match="no module 'ricker'"):
        sequential.module_of("ricker")
    assert {sequential.module_of(name) for name in ACTIVATIONS} <= set(dir(torch.nn))


# --- what they carry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["digits", "csv"])
def test_each_form_carries_the_card(folder: Path, data: str, export: Export, tmp_path: Path) -> None:
    for name in FORMS:
        assert export(data, f"to={name}").code == 0
    network = load(folder / data)
    made = onnx.load("model.onnx")
    in_onnx = {prop.key: prop.value for prop in made.metadata_props}
    with safe_open("model.safetensors", "np") as file:
        in_safetensors = file.metadata()
        assert set(file.keys()) == {f"{k}.{kind}" for k in (0, 2, 4, 6) for kind in ("weight", "bias")}
    for carried in (in_onnx, in_safetensors):
        assert json.loads(carried["classes"]) == list(network.fitted.classes)
        assert json.loads(carried["columns"]) == list(network.fitted.columns)
    assert json.loads(in_safetensors["mean"]) == network.fitted.mean.tolist()
    docstring = ast.get_docstring(ast.parse((tmp_path / "model.py").read_text()), clean=False)
    beside = (tmp_path / "model.card.md").read_text().partition("\n## To load it")[0]
    cards = [in_onnx["model_card"], in_safetensors["model_card"], f"{docstring}", beside]
    for text in cards:
        for part in (
            network.recorded.data, "best validation accuracy, of", "optimizer.name", "accuracy/test", "step",
            "ffn-bench", "numpy", str(folder.joinpath(data).name),
        ):  # fmt: skip
            assert part in text
    dates = re.compile(r"date .*")
    assert len({dates.sub("", text).strip() for text in cards}) == 1


def test_a_card_cannot_leave_its_place(digits: TrainedNetwork) -> None:
    """Names from a folder, in a docstring and in Markdown."""
    names = (
        *('"""', "\\", '\\"""; import os; os.abort()', "\n# a title", "[link](x)", "'", "\u202e"),
        *("\\N{BULLET}", "0", "1"),
    )
    hostile = as_another(digits, "relu", "float32")
    object.__setattr__(hostile.fitted, "classes", names)
    text = card.text(hostile)
    assert all(line.startswith(("#", "    ")) or not line for line in text.splitlines())
    tree = ast.parse(numpy_text.source(hostile, text))
    assert str(ast.get_docstring(tree, clean=False)).strip() == text.strip()
    rows = np.zeros((1, 64))
    labels, _ = executed(numpy_text.source(hostile, text), rows)
    assert labels == [names[hostile.predictions(rows).argmax()]]
    compile(sequential.code(hostile, "it's \"\\.pt"), "code", "exec")


def test_a_file_of_ours_is_replaced_and_a_persons_is_not(export: Export, tmp_path: Path) -> None:
    for name in FORMS:
        assert export("csv", f"to={name}").code == 0
        first = (tmp_path / name).read_bytes()
        assert export("digits", f"to={name}").code == 0
        assert (tmp_path / name).read_bytes() != first
        (tmp_path / name).write_bytes(b"a person's")
        result = export("digits", f"to={name}")
        assert result.code == 4 and "was not written by this command" in result.err
        assert (tmp_path / name).read_bytes() == b"a person's"
    (tmp_path / "model.pt").unlink()
    (tmp_path / "model.card.md").write_text("a person's")
    assert export("digits", "to=model.pt").code == 4
    assert not (tmp_path / "model.pt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {MANIFEST, "model.card.md", *FORMS} - {"model.pt"}
    )


def test_no_file_of_the_run_is_replaced(folder: Path, export: Export) -> None:
    best = (folder / "digits" / "best.safetensors").read_bytes()
    result = export("digits", f"to={folder / 'digits' / 'best.safetensors'}")
    assert result.code == 4 and (folder / "digits" / "best.safetensors").read_bytes() == best
    assert export("digits", f"to={folder / 'digits' / 'model.safetensors'}").code == 0


def test_what_onnxruntime_computes_otherwise_is_not_written(
    digits: TrainedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_model.OPERATORS, "relu", "Abs")
    with pytest.raises(RuntimeError, match="otherwise"):
        onnx_model.model(digits, "a card")
