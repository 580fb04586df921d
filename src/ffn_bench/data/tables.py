"""A person's own table, in a file of text or in a frame, as a data set: what its columns are for, which rows
stay, classes, weights, a test file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from ffn_bench.configuration.schema import ColumnsConfig, CsvConfig, DataConfig
from ffn_bench.data import frame_files
from ffn_bench.data.careful_csv import found_delimiter, read_carefully
from ffn_bench.data.columns import (
    NUMBER,
    TRUTH_VALUES,
    Array,
    Kind,
    Layout,
    Table,
    check_categories,
    natural_order,
    without,
)
from ffn_bench.data.files import BEGINNING, FRAMES, expanded, text_file
from ffn_bench.data.plain_csv import read_plain
from ffn_bench.data.rows import Raw, Rows
from ffn_bench.errors import UserError, data_error, nearest

IntArray = npt.NDArray[np.int64]

POLARS_BYTES = 4_000_000
"""Files from this size on are worth the import of Polars (0.2 s)."""


def load_csv(config: DataConfig) -> Raw:
    """A table of features and a column of labels of any kind, or of targets in a regression, in a file of
    delimited text with a header, or of Parquet or Arrow.

    Strict: a row that is short or long, a cell that is blank (unless `data.missing` says what becomes of it),
    a text among numbers, a number that is not finite, a quote left open, a column named twice are each an
    error that names line and column.
    """
    config = cast(CsvConfig, config)
    columns = Columns(config, targets_of(config), config.path)
    raw = columns.raw(read_table(config.path, "data.path", config, columns.layout))
    if config.test_path is None:
        return raw
    test = Columns(config, targets_of(config), config.test_path)
    table = read_table(config.test_path, "data.test_path", config, lambda header: test.again(header, raw))
    rows = test.rows(table, raw.classes)
    return dataclasses.replace(raw, test=rows, notes=(*raw.notes, *test.notes))


def targets_of(config: CsvConfig) -> list[str]:
    """Names of the columns of labels or targets. Raises `UserError` for several in a classification."""
    if isinstance(config.target, str):
        return [config.target]
    if config.task != "regression" and len(config.target) > 1:
        what = f"names {len(config.target)} columns, and a classification has one column of labels"
        raise UserError("data.target", what, "name one, or use data.task=regression")
    return list(config.target)


def read_table(
    path: str,
    key: str,
    config: CsvConfig,
    layout_of: Callable[[list[str]], Layout],
    blank_labels: bool = False,
) -> Table:
    """The rows of a file that `key` names. Raises `UserError` (status 3) for anything that is no table of the
    columns that `layout_of` wants."""
    file = expanded(path, key)
    blank_labels = blank_labels or config.missing == "drop_rows"
    if file.suffix.lower() in FRAMES:
        return frame_files.read(file, key, layout_of, blank_labels)
    text = text_file(file, key)
    delimiter = config.delimiter or found_delimiter(text.beginning(BEGINNING), path)
    table = None
    if text.size >= POLARS_BYTES:
        table = read_plain(text, delimiter, layout_of, blank_labels)
    return table or read_carefully(text.open, delimiter, path, layout_of, blank_labels)


class Columns:
    """What the columns of a table are for, and the data set that its rows are."""

    def __init__(
        self, config: ColumnsConfig, targets: Sequence[str], where: str, key: str = "data.target"
    ) -> None:
        """`targets` are none where labels come from elsewhere; `where` and `key` are what messages call the
        table and its targets."""
        self.config = dataclasses.replace(
            config,
            drop=_stripped(config.drop),
            categories=_stripped(config.categories),
            weight=None if config.weight is None else config.weight.strip(),
        )
        self.targets, self.where, self.key = _stripped(targets), where, key
        self.regression = config.task == "regression"
        self.notes: list[str] = []
        """What a person should know of the rows that were made of a table."""

    @property
    def others(self) -> list[str]:
        """Columns of numbers that are read as features are, after these: targets of a regression, weights."""
        weight = [] if self.config.weight is None else [self.config.weight]
        return [*self.targets, *weight] if self.regression else weight

    def layout(self, header: list[str], lenient: bool = False) -> Layout:
        """Where everything is. `lenient` lets any cell be blank. Raises `UserError` (status 3) for a column
        that is not there, and where none is left."""
        config = self.config
        if len(header) == 1 and self.targets:
            raise data_error(f"{self.where}, line 1", "has only one column", "give features and a target")
        keys = {
            self.key: self.targets,
            "data.weight": [] if config.weight is None else [config.weight],
            "data.drop": config.drop,
            "data.categories": config.categories,
        }
        for key, names in keys.items():
            for name in names:
                if name not in header:
                    what = f"{self.where} has no column {name!r}{nearest(name, header)}"
                    raise data_error(key, what, f"its columns: {listed(header)}")
        used = {*self.targets, *self.others, *config.drop}
        features = [k for k, name in enumerate(header) if name not in used]
        if not features:
            raise data_error(self.where, "has no column left to train on", "leave fewer out by data.drop")
        blank = lenient or config.missing != "error"
        kinds = [Kind("category" if header[k] in config.categories else "any", blank=blank) for k in features]
        return self._with_others(header, features, kinds, lenient)

    def again(self, header: list[str], raw: Raw) -> Layout:
        """Where the columns of `raw` are in another table. Raises `UserError` (status 3) where one is not."""
        assert raw.columns is not None
        wanted = [*raw.columns, *self.targets, *self.others]
        missing = [name for name in wanted if name not in header]
        if missing:
            what = f"{self.where} has no column {missing[0]!r}{nearest(missing[0], header)}"
            raise data_error("data.test_path", what, "give it the columns of data.path")
        blank = self.config.missing != "error"
        kinds = [kind._replace(blank=blank) for kind in raw.kinds or (NUMBER,) * len(raw.columns)]
        return self._with_others(header, [header.index(name) for name in raw.columns], kinds, False)

    def _with_others(
        self, header: list[str], features: list[int], kinds: list[Kind], lenient: bool
    ) -> Layout:
        blank = lenient or self.config.missing == "drop_rows"
        features = [*features, *(header.index(name) for name in self.others)]
        label = header.index(self.targets[0]) if self.targets and not self.regression else None
        kinds = [*kinds, *(Kind(blank=blank) for _ in self.others)]
        return Layout(header, features, label, tuple(kinds), len(self.others))

    def raw(self, table: Table) -> Raw:
        """The data set of a table's rows."""
        n_columns = len(table.columns) - len(self.others)
        columns = table.columns[:n_columns]
        kinds = (table.kinds or (NUMBER,) * len(table.columns))[:n_columns]
        check_categories(kinds, columns, len(table.x), self.where)
        table = self._complete(table)
        classes: tuple[str, ...] = ()
        if table.labels:
            column = f"column {self.targets[0]!r}"
            classes, _ = classes_of(table.labels, len(table.x), self.where, column)
        x, y, weights = self.rows(table, classes, complete=True)
        if self.config.missing == "drop_rows":
            kinds = tuple(kind._replace(blank=False) for kind in kinds)
        return Raw(
            x,
            y,
            classes,
            columns=columns,
            targets=tuple(self.targets) if self.regression else (),
            weights=weights,
            kinds=None if all(kind == NUMBER for kind in kinds) else kinds,
            notes=tuple(self.notes),
        )

    def rows(self, table: Table, classes: Sequence[str], complete: bool = False) -> Rows:
        """A table's rows: features, class numbers or targets, weights. `complete`: whether rows with blank
        cells have been left out already."""
        if not complete:
            table = self._complete(table)
        n_columns = len(table.columns) - len(self.others)
        x, others = table.x, table.x[:, n_columns:]
        if self.others:
            x = np.ascontiguousarray(x[:, :n_columns])
        weights = None
        if self.config.weight is not None:
            weights = self.check_weights(np.ascontiguousarray(others[:, -1]))
        if self.regression:
            return Rows(x, np.ascontiguousarray(others[:, : len(self.targets)]), weights)
        numbers = class_numbers(table.labels, classes)
        if (numbers < 0).any():
            unknown = table.labels[int(numbers.argmin())]
            what = f"has the label {unknown!r}, which {getattr(self.config, 'path', 'the table')} has not"
            raise data_error(self.where, what, "correct it, or leave its rows out")
        return Rows(x, numbers[table.codes], weights)

    def _complete(self, table: Table) -> Table:
        """The rows without a blank cell, where others are to be left out, which a note tells."""
        if self.config.missing != "drop_rows":
            return table
        blank = np.asarray(np.isnan(table.x).any(axis=1))
        if "" in table.labels:
            blank |= table.codes == table.labels.index("")
        if not blank.any():
            return table
        if blank.all():
            what = "has a blank cell in every row, and data.missing=drop_rows leaves these out"
            n_features = len(table.columns) - len(self.others)
            empty = np.flatnonzero(np.isnan(table.x[:, :n_features]).all(axis=0)).tolist()
            todo = "use data.missing=impute"
            if empty:
                todo = f"leave out what is blank everywhere: {without(*(table.columns[k] for k in empty))}"
            raise data_error(self.where, what, todo)
        count = int(blank.sum())
        of_all = f"{count:,} of {len(blank):,} rows of {self.where}"
        self.notes.append(f"{of_all} have a blank cell and are left out")
        complete = table._replace(x=table.x[~blank])
        if not table.labels:
            return complete
        present, codes = np.unique(table.codes[~blank], return_inverse=True)
        labels = [table.labels[code] for code in present.tolist()]
        return complete._replace(codes=codes.astype(np.int64), labels=labels)

    def check_weights(self, weights: Array) -> Array:
        """The same. Raises `UserError` (status 3) for weights that are none."""
        name = self.config.weight
        if (negative := weights < 0).any():
            row = int(negative.argmax())
            what = f"row {row + 1} has the weight {weights[row]:g}"
            raise data_error(f"{self.where}, column {name!r}", what, "weights are 0 or more")
        if not weights.any():
            raise data_error(f"{self.where}, column {name!r}", "all weights are 0", "give weights above 0")
        with np.errstate(over="ignore"):
            total = weights.sum()
        if not np.isfinite(total):
            what = "the weights are too large to be added up"
            raise data_error(f"{self.where}, column {name!r}", what, "divide them: only their ratios count")
        return weights


def classes_of(
    labels: Sequence[str], n_rows: int, where: str, column: str
) -> tuple[tuple[str, ...], IntArray]:
    """Classes in their natural order (numbers by value), and for each of these different labels its number
    there. Labels that are all true or false, in more than one spelling of a word, are two classes.

    Raises `UserError` (status 3) where they are no classes of so many rows; `column` is what has them.
    """
    words = {label: label.lower() for label in labels}
    if not are_truth_values(labels) or len(set(words.values())) == len(words):
        words = {label: label for label in labels}
    classes = natural_order(set(words.values()))
    if len(classes) == 1:
        raise data_error(where, f"{column} has only one class, {classes[0]!r}", "give two or more")
    if len(classes) > max(20, n_rows // 2):
        what = f"{column} has {len(classes)} different labels in {n_rows} rows"
        todo = "choose a column of classes (measured quantities are not classes: data.task=regression)"
        raise data_error(where, what, todo)
    number = {name: k for k, name in enumerate(classes)}
    return tuple(classes), np.array([number[words[label]] for label in labels])


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> IntArray:
    """Of each label the number of its class, -1 where it is none. Classes true and false have no case: a
    column of truth values is `True` in one format and `true` in another."""
    number = {name: k for k, name in enumerate(classes)}
    if are_truth_values(classes) and len({name.lower() for name in classes}) == len(classes):
        number = {name.lower(): k for name, k in number.items()}
        labels = [label.lower() for label in labels]
    return np.array([number.get(label, -1) for label in labels], dtype=np.int64)


def are_truth_values(names: Sequence[str]) -> bool:
    """Whether all of these names are true or false, in any case."""
    return all(name.lower() in TRUTH_VALUES for name in names)


def _stripped(names: Sequence[str]) -> list[str]:
    """Names of columns as a table has them."""
    return [name.strip() for name in names]


def listed(names: Sequence[str]) -> str:
    """Names of columns, as far as a line holds them."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
