"""What the columns of a table hold: numbers, yes and no, categories; and which of these, by their cells."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ffn_bench.errors import data_error

Array = npt.NDArray[np.float64]
Holds = Literal["number", "boolean", "category", "any"]
Fault = Literal["blank", "infinite", "text"]
"""What is wrong with a cell."""
BLANK_WORDS = frozenset(("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-"))
"""What a blank cell of a column of numbers may say instead, where blank cells are allowed."""
TRUTH_VALUES = {"true": 1.0, "false": 0.0}
"""Words of a column of yes and no, in any case."""
MOST_CATEGORIES = 1000
"""Of a column."""
UNSEEN = -1.0
"""The code of a category that is none of the known ones."""


class Kind(NamedTuple):
    """What a column's cells hold, and how a matrix has them: a number as it is, yes and no as 1 and 0, a
    category as its place among `categories`; NaN where a cell is blank."""

    holds: Holds = "number"
    """`any`: the cells say which of the others, see `kind_of`."""
    categories: tuple[str, ...] | None = None
    """Of a column of categories those that are known, others being `UNSEEN`; None: whatever there is."""
    blank: bool = False
    """Whether cells may be blank."""


NUMBER = Kind()


class Layout(NamedTuple):
    """What the columns of a table are for."""

    header: list[str]
    features: list[int]
    """Positions of the features, in the order of `Table.x`; other columns may hold anything."""
    label: int | None
    """Position of the label, if there is one."""
    kinds: tuple[Kind, ...] | None = None
    """Of the features; None: numbers, none of them blank."""
    others: int = 0
    """How many of the last features are none: targets, weights, which are read as features are."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self.header[k] for k in self.features)

    @property
    def kinds_of_features(self) -> tuple[Kind, ...]:
        """`kinds`, written out."""
        return self.kinds or (NUMBER,) * len(self.features)

    def is_feature(self, name: str) -> bool:
        """Whether the column of this name is one."""
        return name in self.columns[: len(self.features) - self.others]


class Table(NamedTuple):
    """Rows `x [n, n_features]`, float64, see `Kind`, and of each row the label `labels[codes]`, `codes [n]`,
    int64. Labels are distinct, in any order; without a column of labels both are empty."""

    x: Array
    codes: npt.NDArray[np.int64]
    labels: list[str]
    columns: tuple[str, ...]
    """Names of the features."""
    kinds: tuple[Kind, ...] | None = None
    """Of the features, none of them `any`, all categories known; None: numbers, none of them blank."""


def kind_of(numbers: int, texts: int, booleans: int, blank: bool) -> Kind:
    """What a column holds that has so many cells with a number, with another text, and of these with true or
    false in any case; blank cells and `BLANK_WORDS` are neither. A column of numbers and a text here and
    there is a column of numbers, with mistakes."""
    if texts and texts == booleans and not numbers:
        return Kind("boolean", blank=blank)
    return Kind("category" if texts and texts >= numbers else "number", blank=blank)


def number_in(cell: str) -> float | None:
    """The number in a cell, perhaps not a finite one; None where there is none. `float` also takes 1_0 and
    other scripts' digits."""
    if not cell.isascii() or "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted: numbers by value, and text where one of them is none."""
    ordered = sorted(names)
    try:
        ordered.sort(key=float)
    except ValueError:
        ordered.sort()
    return ordered


def number_name(text: str) -> str | None:
    """A finite number as the name of a category, of `1`, `1.0` and `01` it is `1`; None for other texts."""
    number = number_in(text)
    if number is None or not math.isfinite(number):
        return None
    if abs(number) >= 2**53 and len(text) < 400 and text.strip().lstrip("+-").isdigit():
        return str(int(text))  # of which a float would have some digits
    return str(int(number)) if number.is_integer() else repr(number)


def category_names(texts: Iterable[str], blank: bool) -> dict[str, str]:
    """The category that each of a column's texts is. Where all are numbers, apart from `BLANK_WORDS` where
    cells may be `blank`, it is the number's name, and "" of those words; else the text."""
    texts = list(texts)
    names = {text: "" if blank and text in BLANK_WORDS else number_name(text) for text in texts}
    numbers = {text: name for text, name in names.items() if name is not None}
    return numbers if len(numbers) == len(names) and any(numbers.values()) else {text: text for text in texts}


def coder(kind: Kind) -> Callable[[str], float]:
    """The code of a text, stripped and not empty, of a column whose categories are known: numbers by their
    value where all of these are the names of numbers."""
    places = {category: float(k) for k, category in enumerate(kind.categories or ())}
    if not all(number_name(category) == category for category in places):
        return lambda text: places.get(text, UNSEEN)

    def code(text: str) -> float:
        if text in places:
            return places[text]
        if kind.blank and text in BLANK_WORDS:
            return math.nan
        return places.get(number_name(text) or text, UNSEEN)

    return code


def sorted_categories(codes: Array, names: dict[str, str]) -> tuple[str, ...]:
    """Categories in their natural order; `codes`, which are places of texts among the keys of
    `category_names`, become places in this one; NaN stays, and is what "" becomes."""
    ordered = natural_order({*names.values()} - {""})
    place = {category: float(k) for k, category in enumerate(ordered)}
    new = np.array([place.get(category, math.nan) for category in names.values()])
    present = ~np.isnan(codes)
    codes[present] = new[codes[present].astype(np.int64)]
    return tuple(ordered)


def cures(fault: Fault, column: str, layout: Layout, training: bool) -> str:
    """What a person can do about a cell of a column of numbers or of yes and no, or a blank one. `training`:
    whether keys of the data can change how cells are read."""
    steps = ["fill it in" if fault == "blank" else "correct it"]
    feature = training and layout.is_feature(column)
    if fault == "blank" and training:
        steps.append(f"use data.missing={'impute or drop_rows' if feature else 'drop_rows'}")
    if fault == "infinite" or not training:
        steps.append("leave its row out")
    if fault == "text" and feature:
        allowed = layout.kinds_of_features[layout.columns.index(column)].blank
        steps.append("blank it" if allowed else "use data.missing=impute when it is blank")
        steps.append(f"use {as_categories(column)}")
    if feature:
        steps.append(without(column))
    *first, last = steps
    return f"{', '.join(first)}, or {last}" if first else last


def without(*columns: str) -> str:
    """The key that leaves columns out, as a person types it."""
    return _listed_in("data.drop", columns)


def as_categories(column: str) -> str:
    """The key that takes a column of numbers for categories, as a person types it."""
    return _listed_in("data.categories", [column])


def _listed_in(key: str, columns: Sequence[str]) -> str:
    plain = all(re.fullmatch(r"[A-Za-z_]\w*", column) for column in columns)
    if plain:
        return f"{key}=[{','.join(columns)}]"
    names = ",".join("'" + column.replace("'", "\\'") + "'" for column in columns)
    return f'"{key}=[{names}]"'


def check_categories(kinds: Sequence[Kind], columns: Sequence[str], n_rows: int, where: str) -> None:
    """Raise `UserError` (status 3) for columns of texts with so many different ones that they are no
    categories; for decimal numbers with a comma, too."""
    categories = {
        column: kind.categories or ()
        for kind, column in zip(kinds, columns, strict=True)
        if kind.holds == "category"
    }
    for column, names in categories.items():
        sort = misread(names)
        if sort and (sort == COMMAS or is_id_like(len(names), n_rows)):
            example = next(name for name in names if re.fullmatch(MISREAD[sort][0], name))
            what = f"column {column!r} has {sort}, such as {example!r}"
            raise data_error(where, what, f"{MISREAD[sort][1]}; or leave it out: {without(column)}")
    if like_ids := [column for column, names in categories.items() if is_id_like(len(names), n_rows)]:
        what = (
            f"column {like_ids[0]!r} has {len(categories[like_ids[0]]):,} different texts in {n_rows:,} rows"
        )
        others = (
            f", and so has {like_ids[1]!r}"
            if len(like_ids) == 2
            else f", and so have {len(like_ids) - 1} more"
        )
        raise data_error(
            where, what + others * (len(like_ids) > 1), f"leave out what names rows: {without(*like_ids)}"
        )


def is_id_like(categories: int, n_rows: int) -> bool:
    """Whether so many different texts are no categories of so many rows."""
    return categories > max(20, n_rows // 2) or categories > MOST_CATEGORIES


COMMAS = "numbers with a comma"
MISREAD = {
    "numbers with separated thousands": (
        r"[+-]?[0-9]{1,3}([,.' \u00a0\u202f][0-9]{3})+([.,][0-9]+)?",
        "write 1234.5 for 1,234.5",
    ),
    COMMAS: (r"[+-]?[0-9]*,[0-9]+", "write points: 1.5"),
    "percentages": (r"[+-]?[0-9]+([.,][0-9]+)?\s?%", "write 12.5 for 12.5 %"),
    "dates": (
        r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ].*)?|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}( .*)?",
        "turn them into numbers, such as days since one of them",
    ),
}
"""Texts that a person takes for numbers, by what they are: their pattern, and what to do."""
THOUSANDS = r"[+-]?[0-9]{1,3}(\.[0-9]{3})+"
"""Numbers that may be thousands, where commas are for decimals."""


def misread(texts: Sequence[str]) -> str:
    """Which of `MISREAD` more than half of some texts are; "" for none."""
    for sort, (pattern, _) in MISREAD.items():
        if sum(bool(re.fullmatch(pattern, text)) for text in texts) > len(texts) / 2:
            return sort
    return ""
