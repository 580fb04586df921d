"""Data sets that scikit-learn's package has as files, read without importing it (which takes 0.7 s)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ffn_bench.configuration.schema import DataConfig
from ffn_bench.data.rows import Array, Raw

IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
WINE = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
)
NUCLEUS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
BREAST_CANCER = tuple(f.format(name) for f in ("mean {}", "{} error", "worst {}") for name in NUCLEUS)
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def _path(name: str) -> Path:
    """A file of scikit-learn's data."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / name


def _labelled(name: str, columns: tuple[str, ...]) -> Raw:
    """A file whose first line is `rows,columns,class,class,…` and whose last column has class numbers."""
    path = _path(name)
    with path.open(encoding="utf-8") as file:
        _, _, *classes = file.readline().strip().split(",")
    table: Array = np.loadtxt(path, delimiter=",", skiprows=1)
    return Raw(table[:, :-1], table[:, -1].astype(np.int64), tuple(classes), columns=columns)


def load_digits(config: DataConfig) -> Raw:
    """1,797 digits of 8 × 8 pixels, 0 to 16 (Alpaydin and Kaynak, 1998)."""
    table = np.loadtxt(_path("digits.csv.gz"), delimiter=",")
    return Raw(table[:, :-1], table[:, -1].astype(np.int64), tuple("0123456789"), image_shape=(8, 8))


def load_iris(config: DataConfig) -> Raw:
    """150 irises of three species, four lengths and widths (Fisher, 1936)."""
    return _labelled("iris.csv", IRIS)


def load_wine(config: DataConfig) -> Raw:
    """178 wines of three growers, 13 measurements (Forina, 1988)."""
    return _labelled("wine_data.csv", WINE)


def load_breast_cancer(config: DataConfig) -> Raw:
    """569 tumours, malignant or benign, 30 measurements of their cells' nuclei (Street et al., 1993)."""
    return _labelled("breast_cancer.csv", BREAST_CANCER)


def load_diabetes(config: DataConfig) -> Raw:
    """442 patients, ten measurements in their own units, and how far the disease had gone a year later (Efron
    et al., 2004)."""
    x: Array = np.loadtxt(_path("diabetes_data_raw.csv.gz"))
    y: Array = np.loadtxt(_path("diabetes_target.csv.gz"))
    return Raw(x, y[:, None], (), columns=DIABETES, targets=("progression",))
