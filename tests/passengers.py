"""A made-up list of passengers: text, blanks, truth values, an id, a category that is rare."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FEATURES = ("class", "sex", "age", "fare", "alone", "port", "title")


def write_passengers(path: Path, rows: int = 400, seed: int = 0, survived: bool = True) -> Path:
    """A table whose `survived` depends on class, sex, age; `id` and `name` are of no use. Ages and ports are
    blank here and there; the title Countess occurs three times."""
    rng = np.random.default_rng(seed)
    header = ["id", "name", *FEATURES, *(["survived"] if survived else [])]
    lines = [",".join(header)]
    for k in range(rows):
        sex = "female" if rng.random() < 0.4 else "male"
        travels = int(rng.integers(1, 4))
        age = float(rng.integers(1, 800)) / 10
        title = "Countess" if k in (5, 50, 100) else {"female": "Mrs", "male": "Mr"}[sex]
        chance = 1 / (1 + np.exp(-(2.5 * (sex == "female") - 0.9 * (travels - 1) - 0.02 * (age - 30) - 0.5)))
        cells = [
            f"P{k:05d}",
            f'"Surname{k}, {title}. ""Given{k}"""',
            str(travels),
            sex,
            "" if rng.random() < 0.2 else f"{age:g}",
            f"{rng.exponential(30):.6f}",
            str(bool(rng.random() < 0.5)),
            "" if rng.random() < 0.02 else ["Southampton", "Cherbourg", "Queenstown"][int(rng.integers(3))],
            title,
        ]
        if survived:
            cells.append("yes" if rng.random() < chance else "no")
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
