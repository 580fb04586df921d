"""The notebooks of docs/notebooks work, and are stored as they come out; a bar moves in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from execute_notebooks import NOTEBOOKS, executed

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def shown(notebook: Any) -> list[list[list[str]]]:
    """What each cell shows: the kinds of its outputs."""
    return [
        [sorted(output.get("data", {output.output_type: ""})) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_works_and_its_outputs_are_stored(name: str, tmp_path: Path) -> None:
    assert NAMES == ["compare_optimizers.ipynb", "first_network.ipynb"]
    stored = nbformat.read(NOTEBOOKS / name, as_version=4)
    new = executed(NOTEBOOKS / name, tmp_path)
    assert shown(new) == shown(stored)
    assert [cell.get("execution_count") for cell in stored.cells if cell.cell_type == "code"] == [
        k + 1 for k in range(len(shown(stored)))
    ]
    assert all(output.get("name") != "stderr" for cell in new.cells for output in cell.get("outputs", ()))


class Watched(nbclient.NotebookClient):
    """Notes the HTML that a cell shows meanwhile."""

    seen: list[str]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if html := msg["content"].get("data", {}).get("text/html") if "data" in msg["content"] else None:
            self.seen.append(html)
        return super().process_message(msg, cell, cell_index)


def test_a_bar_moves_while_a_run_or_a_sweep_trains(tmp_path: Path) -> None:
    cells = (
        "import ffn_bench as ffn; run = ffn.fit('moons', epochs=2000, name='x')",
        "sweep = ffn.sweep('moons', epochs=300, seed=range(4))",
        "run = ffn.fit('moons', epochs=2000, seed=1, progress=False)",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = Watched(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.seen = []
    client.execute()
    bars = [html for html in client.seen if "<progress" in html]
    of_run = [html for html in bars if "/2000" in html]
    assert len(of_run) > 1 and "steps/s" in of_run[-1] and "val " in of_run[-1]
    assert any("/4 ended" in html for html in bars)
    left = [[output.get("data", {}).get("text/html") for output in cell.outputs] for cell in notebook.cells]
    assert left == [[""], [""], []]
