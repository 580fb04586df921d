"""Tables in files of Parquet and Arrow, read by Polars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ffn_bench.data.columns import Layout, Table
from ffn_bench.data.files import check_file
from ffn_bench.data.frames import names_of, table_of
from ffn_bench.data.plain_csv import may_use_polars
from ffn_bench.errors import UserError, data_error, first_line

if TYPE_CHECKING:
    import polars as pl


def read(
    path: Path,
    key: str,
    layout_of: Callable[[list[str]], Layout],
    blank_labels: bool = False,
    training: bool = True,
) -> Table:
    """The rows of a file that `key` names; `training`: see `features_of`.

    Raises `UserError` (status 3) for one that is damaged, larger than free memory, or no table of the columns
    that `layout_of` wants.
    """
    where = str(path)
    check_file(path, key)
    if not may_use_polars():
        todo = "use hydra/launcher=sequential, or save it as CSV"
        raise data_error(where, "cannot be read in a worker process", todo)
    frame = _frame(path)
    if frame.height == 0:
        raise data_error(where, "has columns and no rows", "add rows")
    layout = layout_of(list(names_of(frame, where)))
    return table_of(frame, layout, where, blank_labels, training)


def _frame(path: Path) -> pl.DataFrame:
    import polars as pl

    parquet = path.suffix.lower() == ".parquet"
    try:
        lazy = pl.scan_parquet(path, glob=False) if parquet else pl.scan_ipc(path)
        rows = lazy.select(pl.len()).collect().item()
        needed = 16 * rows * len(lazy.collect_schema())  # the frame, and its numbers as a matrix
        if needed > (available := psutil.virtual_memory().available):
            what = (
                f"has {rows:,} rows, which need {needed / 1e9:,.1f} GB, and {available / 1e9:.1f} GB are free"
            )
            raise data_error(str(path), what, "train on a sample of its rows")
        return lazy.collect()
    except UserError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as e:
        format_ = "Parquet" if parquet else "Arrow"
        what = f"cannot be read as {format_} ({first_line(str(e)):.120})"
        raise data_error(str(path), what, "write it again, or save it as CSV") from e
