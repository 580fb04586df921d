"""`ffn-predict`: rows of a table, or of a run's own data set, through its trained network."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from omegaconf import DictConfig

from ffn_bench import checks, process
from ffn_bench.command_line import analysis
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError, data_error, printable, without_formula
from ffn_bench.run_folder.finding import find_one
from ffn_bench.tags import LOSS, SCORES_OF, SPLITS

if TYPE_CHECKING:
    from ffn_bench.data.columns import Layout, Table
    from ffn_bench.data.rows import Array
    from ffn_bench.run_folder.trained_network import TrainedNetwork

STANDARD = "-"
"""Standard input as a path to read, standard output as one to write."""


def predict(given: DictConfig, typed: str) -> None:
    """Predict what `given` asks for. Raises `UserError`."""
    analysis.check_one_run(given)
    cfg = parsing.typed(given, schema.PredictConfig)
    check(cfg)
    assert cfg.run is not None
    if cfg.out == STANDARD:
        cfg.out = None
    target = None if cfg.out is None else analysis.output_file(cfg.out, "out")
    if target is None:
        process.check_output_open()
    folder = find_one(cfg.run)

    from ffn_bench.run_folder import trained_network

    network = trained_network.load(folder, cfg.at)
    predicted = Predicted(network, cfg)
    rows = predicted.csv()
    pieces = chain([next(rows)], rows)  # an error in the first rows comes before anything is created
    if target is None:
        print_csv(pieces)
        if process.output_fault() is None:
            print(predicted.summary(), file=sys.stderr)
    else:
        with analysis.writing(target[0], "out"):
            target[0].write_output(target[1], pieces)
        print(predicted.summary())


def check(cfg: schema.PredictConfig) -> None:
    """Raise `UserError` for values that are missing, out of range or exclude each other; name a tab by
    itself."""
    if cfg.run is None:
        raise UserError("run", "has no value", "name a run's folder: run=outputs/study")
    if cfg.at is not None:
        checks.check_at(cfg.at)
    if cfg.split is not None and cfg.data.path is not None:
        raise UserError("split", "and data.path are both given", "give one of them")
    if cfg.split is not None:
        checks.one_of(cfg.split, tuple(SPLITS), "split")
    elif cfg.data.path is None:
        todo = "name a CSV file, or split=test for the run's own data"
        raise UserError("data.path", "has no value", todo)
    elif not cfg.data.path.strip():
        raise UserError("data.path", "is empty", "name a CSV file, or - for standard input")
    if cfg.data.delimiter is not None:
        cfg.data.delimiter = checks.delimiter(cfg.data.delimiter)


def print_csv(pieces: Iterable[bytes]) -> None:
    """Print UTF-8, whatever a terminal's encoding, until nobody reads it any more."""
    for piece in pieces:
        if process.output_fault() is not None:
            return
        binary = getattr(sys.stdout, "buffer", None)
        if binary is None:
            sys.stdout.write(piece.decode())
        else:
            sys.stdout.flush()
            binary.write(piece)
            binary.flush()


class Part(NamedTuple):
    """Some rows, as the network takes them."""

    x: Array
    """Standardised `[n, n_features]`."""
    y: Array | None
    """Class numbers `[n]`, below 0 for labels that are no class, or standardised targets `[n, n_targets]`,
    NaN where they are blank; None where there are none."""
    where: str
    """What the first row is called in messages."""
    weights: Array | None = None
    """What each row counts in the loss, `[n]`."""


class Predicted:
    """The predictions of one command, made while they are written."""

    def __init__(self, network: TrainedNetwork, cfg: schema.PredictConfig) -> None:
        from ffn_bench.engine.metrics import Scoring
        from ffn_bench.predict.scores import Scores

        self.network, self._cfg, fitted = network, cfg, network.fitted
        self.rows = 0
        self.scores = Scores(Scoring(fitted.task, fitted.target_scale), network.criterion)
        self.notes = [network.caution] if network.caution else []
        self._unseen = Counter[str]()
        self._targets: tuple[str, ...] = ()
        """Of a regression, where the table has them."""

    def csv(self) -> Iterator[bytes]:
        """The table of predictions, part by part. Raises `UserError` (status 3) for rows that are none."""
        from ffn_bench.run_folder.trained_network import check_finite

        write = self._write_targets() if self.network.fitted.targets else self._write_classes()
        with_labels = self._cfg.split is not None
        for part in self._parts():
            logits = self.network.logits(part.x)
            if (row := check_finite(logits)) is not None:
                what = f"the values of row {self.rows + row + 1} are too large for this network"
                raise data_error(part.where, what, "correct them, or drop the row")
            self.rows += len(part.x)
            if part.y is not None:
                self.scores.add(logits, part.y, part.weights)
            yield write(logits, part.y if with_labels else None)
        if self.rows == 0:
            raise data_error(str(self._cfg.data.path), "has a header and no rows", "add rows")

    def _write_classes(self) -> Callable[[Array, Array | None], bytes]:
        """What makes text of logits and labels."""
        from ffn_bench.predict.csv_text import CsvWriter

        network, on_terminal = self.network, self._cfg.out is None and sys.stdout.isatty()
        shown = printable if on_terminal else without_formula
        writer = CsvWriter(network.fitted.classes, self._cfg.split is not None, shown)
        return lambda logits, y: writer.part(logits.argmax(1), network.predicted(logits), y)

    def _write_targets(self) -> Callable[[Array, Array | None], bytes]:
        """What makes text of outputs and standardised targets."""
        from ffn_bench.predict.csv_text import TargetWriter

        network, writer = self.network, TargetWriter(self.network.fitted.targets)

        def text(outputs: Array, y: Array | None) -> bytes:
            return writer.part(
                network.predicted(outputs), None if y is None else network.fitted.in_own_unit(y)
            )

        return text

    def _parts(self) -> Iterator[Part]:
        if self._cfg.split is not None:
            yield self._split(self._cfg.split)
            return
        name = str(self._cfg.data.path)
        where = "standard input" if name == STANDARD else name
        for table in self._tables(name, lambda header: self._layout(header, where)):
            n_columns = len(self.network.fitted.columns)
            x, y = table.x[:, :n_columns], None
            if self._targets:  # which are read like features, after these
                y = self.network.fitted.standardised_targets(table.x[:, n_columns:])
            else:
                y = self._class_numbers(table)
            self._count_unseen(x)
            yield Part(self.network.standardise(x), y, where)

    def _tables(self, name: str, layout_of: Callable[[list[str]], Layout]) -> Iterator[Table]:
        """The rows of a table: block by block, or those of a Parquet or Arrow file at once."""
        from ffn_bench.data import frame_files
        from ffn_bench.data.blocks import read_blocks
        from ffn_bench.data.files import FRAMES, expanded

        if name.lower().endswith(FRAMES):
            path = expanded(name, "data.path")
            yield frame_files.read(path, "data.path", layout_of, blank_labels=True, training=False)
            return
        delimiter = self._cfg.data.delimiter or getattr(self.network.config.data, "delimiter", None)
        where = "standard input" if name == STANDARD else name
        with opened(name) as stream:
            for block in read_blocks(stream, where, delimiter, layout_of):
                yield block.table

    def _count_unseen(self, x: Array) -> None:
        """Count the cells with categories that the training rows did not have."""
        fitted = self.network.fitted
        if fitted.encoding is not None:
            for column, count in zip(fitted.columns, fitted.encoding.unseen(x), strict=True):
                self._unseen[column] += count

    def _split(self, split: str) -> Part:
        """A split of the run's own data set."""
        from ffn_bench.run_folder.trained_network import data_again

        data = data_again(self.network.recorded)
        x, y, weights = getattr(data, split)
        if len(y) == 0:
            what = f"the run has no rows in its {SPLITS[split]} split"
            raise UserError("split", what, f"use one of: {', '.join(SPLITS)}")
        return Part(x, y, split, weights)

    def _layout(self, header: list[str], where: str) -> Layout:
        from ffn_bench.data.tables import listed
        from ffn_bench.predict.columns import matched, unused

        wanted, fitted = self._cfg.data.target, self.network.fitted
        if fitted.targets:
            return self._layout_of_targets(header, where)
        label = wanted or getattr(self.network.config.data, "target", None)
        layout = matched(header, fitted.columns, label, where)
        if wanted is not None and layout.label is None:
            raise data_error(
                "data.target", f"{where} has no column {wanted!r}", f"its columns: {listed(header)}"
            )
        if ignored := unused(layout):
            self.notes.append(f"ignored, as the run was not trained on them: {listed(ignored)}")
        return layout._replace(kinds=fitted.kinds)

    def _layout_of_targets(self, header: list[str], where: str) -> Layout:
        """Of a regression: the columns, then its targets, where all of them are there; they may be blank."""
        from ffn_bench.data.columns import NUMBER, Kind
        from ffn_bench.data.tables import listed
        from ffn_bench.predict.columns import matched, unused

        fitted, wanted = self.network.fitted, self._cfg.data.target
        targets = fitted.targets if wanted is None else (wanted,)
        if wanted is not None and len(fitted.targets) > 1:
            what, todo = f"names one column, and the run has {len(fitted.targets)} targets", "leave it out"
            raise UserError("data.target", what, todo)
        missing = [name for name in targets if name not in header]
        if wanted is not None and missing:
            todo = f"its columns: {listed(header)}"
            raise data_error("data.target", f"{where} has no column {wanted!r}", todo)
        if wanted in fitted.columns:
            what = f"{wanted!r} is a feature that the run was trained on"
            raise data_error("data.target", what, "name the column of the target")
        self._targets = () if missing else targets
        layout = matched(header, (*fitted.columns, *self._targets), None, where)
        if 0 < len(missing) < len(targets):
            self.notes.append(f"not scored, as these targets are missing: {listed(missing)}")
        if ignored := [name for name in unused(layout) if name not in targets]:
            self.notes.append(f"ignored, as the run was not trained on them: {listed(ignored)}")
        kinds = fitted.kinds or (NUMBER,) * len(fitted.columns)
        return layout._replace(kinds=(*kinds, *(Kind(blank=True) for _ in self._targets)))

    def _class_numbers(self, table: Table) -> Array | None:
        from ffn_bench.data.tables import class_numbers

        if not table.labels:
            return None
        return class_numbers(table.labels, self.network.fitted.classes)[table.codes]

    def summary(self) -> str:
        """What was done, in lines: by which weights, how many rows, scores, notes."""
        lines = {"network": f"{self.network.recorded.folder}, {self.network.weights.words}"}
        lines["rows"] = f"{self.rows:,}"
        means = self.scores.means()
        for quantity in (*SCORES_OF[self.network.fitted.task], LOSS) if means else ():
            lines[quantity.shown] = quantity.text(means[quantity.name])
        if unscored := self.scores.unscored:
            rows = "1 row" if unscored == 1 else f"{unscored:,} rows"
            why = "with a blank target" if self._targets else "whose label is none of the run's classes"
            lines["not scored"] = f"{rows}, {why}"
        for column, count in self._unseen.items():
            if count:
                rows = "1 row has" if count == 1 else f"{count:,} rows have"
                self.notes.append(
                    f"{rows} a {column!r} that no training row has: it counts as none of the known"
                )
        if self.notes:
            lines["note"] = "; ".join(self.notes)
        if self._cfg.out is not None:
            lines["predictions"] = self._cfg.out
        return "\n".join(f"  {name:<12} {printable(text)}" for name, text in lines.items())


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file that is read, or standard input for `-`. Raises `UserError` (status 3)."""
    if path == STANDARD:
        yield process.standard_input()
        return
    from ffn_bench.data.files import check_file, expanded, unpacked_stream

    file = expanded(path, "data.path")
    check_file(file)
    with unpacked_stream(file) as stream:
        yield stream


def main() -> None:
    """The console script `ffn-predict`."""
    several = "a command for each run"
    analysis.run_analysis("predict", schema.PredictConfig, predict, analysis.quote, several)


if __name__ == "__main__":
    main()
