"""`data.preview=true`: a person's table as it would be read."""

from __future__ import annotations

from rich.table import Table

from ffn_bench.command_line.console import count, line, make_console
from ffn_bench.configuration.schema import CsvConfig


def show(config: CsvConfig) -> None:
    """Print what each column of a table is taken for. Raises `UserError` (status 3) for what is no table."""
    from ffn_bench.data.preview import preview

    found = preview(config)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("column", "taken for", "values", "blank", ""):
        table.add_column(name, justify="right" if name == "blank" else "left")
    for one in found.columns:
        blanks = count(one.blanks) if one.blanks else ""
        table.add_row(line(one.name), line(one.taken_for), line(one.values), blanks, line(one.note))
    console = make_console()
    rows = f"{count(found.rows)} row{'s' * (found.rows != 1)}"
    console.print(line(f"ffn-train: {config.path}, {rows}, {len(found.columns)} columns", "bold"))
    console.print(table)
    console.print(line("  nothing is trained with data.preview=true"))
