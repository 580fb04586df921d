"""`ffn-export`: writes a trained network as a file, whose suffix says which form it has."""

from __future__ import annotations

import keyword
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ffn_bench import checks
from ffn_bench.command_line import analysis
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError, nearest, printable
from ffn_bench.run_folder.finding import find_one

if TYPE_CHECKING:
    from ffn_bench.run_folder.trained_network import TrainedNetwork


def export(given: DictConfig, typed: str) -> None:
    """Write the file that `given` asks for. Raises `UserError`."""
    analysis.check_one_run(given)
    cfg = parsing.typed(given, schema.ExportConfig)
    check(cfg)
    assert cfg.run is not None and cfg.to is not None
    folder, name = analysis.output_file(cfg.to, "to")
    stem, suffix = Path(name).stem, Path(name).suffix
    beside = f"{stem}.card.md"
    if suffix == ".pt":
        folder.check_output(beside)
    if suffix == ".onnx":
        from ffn_bench.export.onnx_model import check_installed

        check_installed()

    from ffn_bench.command_line.console import make_console
    from ffn_bench.export import card
    from ffn_bench.run_folder import trained_network

    network = trained_network.load(find_one(cfg.run), cfg.at)
    text = card.text(network)
    contents = {name: FORMS[suffix](network, text)}
    if suffix == ".pt":
        from ffn_bench.export.sequential import code

        loading = "".join(f"    {line}\n" if line else "\n" for line in code(network, name).splitlines())
        contents = {beside: f"{text}\n## To load it\n\n{loading}".encode(), **contents}
    with analysis.writing(folder, "to"):
        for each, content in contents.items():
            folder.write_output(each, [content])
    console = make_console()
    trained = printable(f"{network.recorded.folder}, {network.weights.words}")
    console.print(f"  network      {trained}", soft_wrap=True)
    if network.caution:
        console.print(f"  note         {printable(network.caution)}", style="yellow", soft_wrap=True)
    paths = " and ".join(str(folder.path / each) for each in contents)
    console.print(f"  written      {printable(paths)}", soft_wrap=True)
    console.print(f"\n{use(network, cfg.to, beside)}", soft_wrap=True, end="")


def check(cfg: schema.ExportConfig) -> None:
    """Raise `UserError` for values that are missing or unknown."""
    if cfg.run is None:
        raise UserError("run", "has no value", "name a run's folder: run=outputs/study")
    if cfg.at is not None:
        checks.check_at(cfg.at)
    todo = f"end it in one of: {', '.join(FORMS)}"
    if cfg.to is None:
        raise UserError("to", "has no value", f"name a file, such as to=model.onnx; {todo}")
    suffix = Path(cfg.to).suffix
    if cfg.to.strip() and suffix not in FORMS:
        what = f"{cfg.to!r} ends in {suffix!r}" if suffix else f"{cfg.to!r} has no suffix"
        raise UserError("to", f"{what}, which is no known form{nearest(suffix, FORMS)}", todo)
    stem = Path(cfg.to).stem
    if suffix == ".py" and (keyword.iskeyword(stem) or stem in (*sys.stdlib_module_names, "numpy")):
        kind = "a keyword of Python" if keyword.iskeyword(stem) else "a module that it would hide"
        raise UserError("to", f"{stem!r} is {kind}", "use another name, such as to=model.py")


def use(network: TrainedNetwork, path: str, card: str) -> str:
    """The lines of code that use a file."""
    from ffn_bench.export.sequential import code

    name, suffix = Path(path).name, Path(path).suffix
    if suffix in (".pt", ".safetensors"):
        return code(network, path, card)
    if suffix == ".py":
        stem = Path(path).stem
        command = f"python {shlex.quote(name)} rows.csv\n"
        functions = "predict" if network.fitted.targets else "predict, predict_proba"
        return f"from {stem} import {functions}  # or: {command}" if stem.isidentifier() else command
    lines = ["import onnxruntime", "", f"session = onnxruntime.InferenceSession({path!r})"]
    given = "(predictions,)" if network.fitted.targets else "label, probabilities"
    columns, encoding = network.fitted.columns, network.fitted.encoding
    if encoding is None:
        lines += [f"{given} = session.run(None, {{'rows': x}})  # x: float64 [n, {len(columns)}]"]
    else:
        cells = {True: "numpy.array([['a text']], object)", False: "numpy.array([[1.0]])"}
        lines[0] = "import numpy, onnxruntime"
        lines += ["# Of each column [n, 1]: texts, stripped, '' where blank; or float64, NaN where blank."]
        lines += ["inputs = {"]
        lines += [
            f"    {name!r}: {cells[column.holds == 'category']},"
            for name, column in zip(columns, encoding.columns, strict=True)
        ]
        lines += ["}", f"{given} = session.run(None, inputs)"]
    return "\n".join(lines) + "\n"


def _onnx(network: TrainedNetwork, card: str) -> bytes:
    from ffn_bench.export.onnx_model import model

    return model(network, card)


def _safetensors(network: TrainedNetwork, card: str) -> bytes:
    from ffn_bench.export.sequential import safetensors

    return safetensors(network, card)


def _pt(network: TrainedNetwork, card: str) -> bytes:
    from ffn_bench.export.sequential import pt

    return pt(network)


def _py(network: TrainedNetwork, card: str) -> bytes:
    from ffn_bench.export.numpy_text import source

    return source(network, card).encode()


FORMS: dict[str, Callable[[TrainedNetwork, str], bytes]] = {
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".py": _py,
}
"""What makes the content of a file, from a network and its card, by suffix."""


def main() -> None:
    """The console script `ffn-export`."""
    several = "a command for each run"
    analysis.run_analysis("export", schema.ExportConfig, export, analysis.quote, several)


if __name__ == "__main__":
    main()
