"""What becomes of text and blanks, held against scikit-learn's transformers fitted to the same rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from conftest import Command
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.configuration.schema import ArraysConfig, CsvConfig
from ffn_bench.data import arrays, datasets, encoding, tables
from ffn_bench.data.columns import UNSEEN, Kind
from ffn_bench.data.preparation import prepare
from ffn_bench.data.rows import Raw
from ffn_bench.run_folder import fitted
from passengers import FEATURES, write_passengers

KEEP = {"drop": ["id", "name"], "categories": ["class"], "missing": "impute"}


def config(path: Path, **keys: object) -> CsvConfig:
    return CsvConfig(name="csv", path=str(path), **{"target": "survived", **KEEP, **keys})  # type: ignore[arg-type]


def test_a_table_is_what_scikit_learn_makes_of_it(tmp_path: Path) -> None:
    """Column by column, of all three splits."""
    path = write_passengers(tmp_path / "t.csv")
    settings_ = config(path)
    raw = tables.load_csv(settings_)
    data = prepare(raw, settings_)
    frame = pl.read_csv(path).with_columns(
        pl.col("class").cast(pl.String), pl.col("alone").cast(pl.Float64), row=pl.int_range(pl.len())
    )
    rows = {name: _rows(raw, data, name) for name in ("train", "val", "test")}
    for name, column in (("class", 0), ("sex", 1), ("port", 5), ("title", 6)):
        assert data.encoding is not None and data.encoding.columns[column].holds == "category", name
    number = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    plain = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    category = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    filled = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), category)
    transformer = ColumnTransformer(
        [
            ("class", category, ["class"]),
            ("sex", category, ["sex"]),
            ("age", make_union(number, MissingIndicator()), ["age"]),
            ("fare", plain, ["fare"]),
            ("alone", StandardScaler(), ["alone"]),
            ("port", make_union(filled, MissingIndicator(missing_values=None)), ["port"]),
            ("title", category, ["title"]),
        ]
    )
    pandas = pd.DataFrame(frame.to_dict(as_series=False))
    pandas["port"] = pd.Series(frame["port"].to_list(), dtype=object)
    transformer.fit(pandas.iloc[rows["train"]])
    for name, chosen in rows.items():
        expected = transformer.transform(pandas.iloc[chosen])
        np.testing.assert_allclose(getattr(data, name).x, expected, rtol=1e-12, atol=1e-12)


def _rows(raw: Raw, data: object, name: str) -> list[int]:
    """Numbers of the rows of a split: the fares are all different."""
    split = getattr(data, name)
    mean, std = data.mean[7], data.std[7]  # type: ignore[attr-defined]
    fares = raw.x[:, 3]
    return [int(np.abs(fares - fare).argmin()) for fare in split.x[:, 7] * std + mean]


def test_names_of_inputs(tmp_path: Path) -> None:
    settings_ = config(write_passengers(tmp_path / "t.csv"))
    data = datasets.load(settings_)
    assert data.columns == FEATURES and data.encoding is not None
    assert data.encoding.names(FEATURES) == (
        "class=1", "class=2", "class=3", "sex=female", "sex=male", "age", "age is blank", "fare", "alone",
        "port=Cherbourg", "port=Queenstown", "port=Southampton", "port is blank",
        "title=Countess", "title=Mr", "title=Mrs",
    )  # fmt: skip
    assert data.n_features == data.encoding.n_inputs == data.train.x.shape[1] == 16


COLUMN = st.sampled_from(["number", "boolean", "category"])


@settings(max_examples=100)
@given(data=st.data())
def test_any_encoding_reads_back_from_json(data: st.DataObject) -> None:
    """As run.json has it, and encodes the same rows to the same bits."""
    n, holds = data.draw(st.integers(1, 12)), data.draw(st.lists(COLUMN, min_size=1, max_size=4))
    blank = data.draw(st.booleans())
    kinds, columns = [], []
    for what in holds:
        values = {
            "number": st.floats(-1e6, 1e6),
            "boolean": st.sampled_from([0.0, 1.0]),
            "category": st.sampled_from([0.0, 1.0, 2.0]),
        }[what]
        cells = st.one_of(values, values, st.just(math.nan)) if blank else values
        column = data.draw(st.lists(cells, min_size=n, max_size=n))
        column[0] = 0.0
        columns.append(column)
        kinds.append(Kind(what, ("a", "b", "ü") if what == "category" else None, blank))  # type: ignore[arg-type]
    x = np.array(columns).T.copy()
    names = tuple(f"c{k}" for k in range(len(holds)))
    half = encoding.fit(x[: max(1, n // 2)], kinds, names)
    raw = Raw(x, np.arange(n) % 2, ("0", "1"), columns=names, kinds=tuple(kinds))
    record = {
        "columns": names,
        "classes": raw.classes,
        "mean": [0.0] * half.n_inputs,
        "scale": [1.0] * half.n_inputs,
        "encoding": [vars(column) for column in half.columns],
    }
    again = fitted.from_record(json.loads(json.dumps(record)), half.n_inputs, 2, "run.json")
    assert again.encoding == half and again.inputs == half.names(names)
    codes = x.copy()
    for k, encoded in enumerate(half.columns):
        if encoded.holds == "category":
            codes[:, k] = encoding.recoded(x[:, k], kinds[k], encoded)
    assert again.standardise(codes, "float64").tobytes() == half.inputs(x, kinds).tobytes()
    assert half.unseen(x, kinds) == half.unseen(codes)


def test_blanks_and_unseen_categories() -> None:
    kinds = [Kind("number", None, True), Kind("category", ("a", "b", "c"), True), Kind("boolean", None, True)]
    train = np.array([[1, 1, 1], [math.nan, 0, 0], [3, 0, 1], [10, math.nan, 1]], dtype=float)
    fit = encoding.fit(train, kinds, ["n", "s", "t"])
    assert fit.names(["n", "s", "t"]) == ("n", "n is blank", "s=a", "s=b", "s is blank", "t")
    new = np.array([[math.nan, math.nan, math.nan], [5, 2, 0]])
    np.testing.assert_array_equal(fit.inputs(new, kinds), [[3, 1, 1, 0, 1, 1], [5, 0, 0, 0, 0, 0]])
    assert fit.unseen(new, kinds) == [0, 1, 0]
    np.testing.assert_array_equal(fit.inputs(np.array([[5, UNSEEN, 0]])), [[5, 0, 0, 0, 0, 0]])


def test_numbers_without_blanks_have_no_encoding_and_the_bits_of_before(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).round(3)
    path.write_text("a,b,c,y\n" + "".join(f"{p},{q},{r},{k % 2}\n" for k, (p, q, r) in enumerate(x.tolist())))
    settings_ = CsvConfig(name="csv", path=str(path), target="y")
    data = datasets.load(settings_)
    of_arrays = prepare(arrays.raw_of((x, np.arange(60) % 2), None), settings_)
    assert data.encoding is None and data.sha256 == of_arrays.sha256
    assert data.train.x.tobytes() == of_arrays.train.x.tobytes()
    assert set(fitted.to_record(data)) == {"columns", "classes", "mean", "scale"}
    imputed = datasets.load(CsvConfig(name="csv", path=str(path), target="y", missing="impute"))
    assert imputed.train.x.tobytes() == data.train.x.tobytes()


def test_the_hash_knows_the_names_of_categories(tmp_path: Path) -> None:
    path = write_passengers(tmp_path / "t.csv")
    one = datasets.load(config(path)).sha256
    path.write_text(path.read_text().replace("Cherbourg", "Cologne"))
    assert datasets.load(config(path)).sha256 != one


# --- a test file of its own, weights, frames ------------------------------------------------------------


def test_a_test_file_has_its_columns_in_any_order(tmp_path: Path) -> None:
    whole = write_passengers(tmp_path / "t.csv", 300)
    rows = pl.read_csv(whole, infer_schema=False)
    rows[:200].write_csv(tmp_path / "train.csv")
    rows[200:].select(reversed(rows.columns)).write_csv(tmp_path / "test.csv")
    test = rows[200:].with_columns(port=pl.lit("Hamburg"))
    test.write_csv(tmp_path / "unseen.csv")
    data = datasets.load(config(tmp_path / "train.csv", test_path=str(tmp_path / "test.csv")))
    assert (len(data.train.y), len(data.val.y), len(data.test.y)) == (170, 30, 100)
    expected = rows[200:].get_column("survived").to_list()
    assert [data.classes[k] for k in data.test.y] == expected
    unseen = datasets.load(config(tmp_path / "train.csv", test_path=str(tmp_path / "unseen.csv")))
    assert any("'port' has in 100 test rows a category" in warning for warning in unseen.warnings)
    assert unseen.encoding is not None
    ports = [k for k, name in enumerate(unseen.encoding.names(FEATURES)) if name.startswith("port=")]
    assert not unseen.test.x[:, ports].any()


def test_weights_are_of_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("w,n,y\n" + "".join(f"{k % 5},{k},{'ab'[k % 2]}\n" for k in range(60)))
    data = datasets.load(CsvConfig(name="csv", path=str(path), target="y", weight="w"))
    assert data.columns == ("n",) and data.train.weights is not None
    for split in (data.train, data.val, data.test):
        assert split.weights is not None
        n = np.rint(split.x[:, 0] * data.std[0] + data.mean[0])
        np.testing.assert_allclose(split.weights / split.weights.max(), (n % 5) / (n % 5).max())


def test_a_regression_has_several_targets_and_a_test_file(tmp_path: Path) -> None:
    rows = "".join(f"{k},{'ab'[k % 2]},{2 * k},{-k}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"n,s,p,q\n{rows}")
    (tmp_path / "test.csv").write_text("q,p,s,n\n-1,2,a,1\n-3,6,b,3\n")
    keys = {"task": "regression", "target": ["q", "p"], "test_path": str(tmp_path / "test.csv")}
    data = datasets.load(CsvConfig(name="csv", path=str(tmp_path / "t.csv"), **keys))  # type: ignore[arg-type]
    assert data.targets == ("q", "p") and data.columns == ("n", "s") and data.classes == ()
    np.testing.assert_allclose(data.test.y * data.target_std + data.target_mean, [[-1, 2], [-3, 6]])


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_frames_are_what_files_are(tmp_path: Path, library: str) -> None:
    path = write_passengers(tmp_path / "t.csv")
    given_ = pl.read_csv(path) if library == "polars" else pd.read_csv(path)
    raw = arrays.raw_of(given_, "survived", ArraysConfig(name="arrays", **KEEP))  # type: ignore[arg-type]
    of_file = tables.load_csv(config(path))
    assert raw.kinds == of_file.kinds and raw.classes == of_file.classes and raw.columns == of_file.columns
    assert raw.x.tobytes() == of_file.x.tobytes() and raw.y.tolist() == of_file.y.tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".tsv", ".txt", ".gz", ".bz2", ".xz"])
def test_formats_of_files(tmp_path: Path, suffix: str) -> None:
    import bz2
    import gzip
    import lzma

    path = write_passengers(tmp_path / "t.csv")
    other, frame = tmp_path / f"t{suffix}", pl.read_csv(path)
    if suffix == ".parquet":
        frame.write_parquet(other)
    elif suffix in (".feather", ".arrow"):
        frame.write_ipc(other)
    elif suffix in (".tsv", ".txt"):
        frame.write_csv(other, separator="\t" if suffix == ".tsv" else ";")
    else:
        pack = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[suffix]
        other.write_bytes(pack.compress(path.read_bytes()))
    raw, same = tables.load_csv(config(path)), tables.load_csv(config(other))
    assert (
        same.x.tobytes() == raw.x.tobytes() and same.kinds == raw.kinds and same.y.tolist() == raw.y.tolist()
    )


# --- keys, commands -------------------------------------------------------------------------------------


def test_fingerprints_of_before_stay() -> None:
    flat = {"data.name": "csv", "data.path": "t.csv", "data.target": "y", "data.delimiter": ",", "lr": 0.1}
    later = {key: fingerprint.LATER[key] for key in fingerprint.later(flat)}
    now = {**flat, **later, "data.delimiter": None, "data.preview": True}
    assert {"data.missing", "data.drop", "data.weight", "data.test_path"} < later.keys()
    assert fingerprint.fingerprint_of(now) == fingerprint.fingerprint_of(flat)
    for key, value in (("data.missing", "impute"), ("data.drop", ["a"]), ("data.delimiter", ";")):
        assert fingerprint.fingerprint_of({**now, key: value}) != fingerprint.fingerprint_of(flat)
    assert "data.missing" not in fingerprint.later({"data.name": "digits"})


def test_passengers_are_trained_on(ffn: Command, tmp_path: Path) -> None:
    """What is fitted stands in run.json, and a resumed run is the same."""
    write_passengers(tmp_path / "t.csv")
    keys = ["data=csv", "data.path=t.csv", "data.target=survived", "data.missing=impute", "name=t"]
    refused = ffn(*keys)
    assert refused.code == 3 and "data.drop=[id,name]" in refused.err
    result = ffn(*keys, "data.drop=[id,name]", "epochs=30")
    assert result.code == 0, result.err
    assert "16 features" not in result.err
    record = json.loads((tmp_path / "outputs/t/run.json").read_text())
    assert record["fitted"]["columns"] == list(FEATURES)
    summary = json.loads((tmp_path / "outputs/t/summary.json").read_text())
    assert summary["final"]["accuracy/val"] > 0.7
    assert "already ended" in ffn(*keys, "data.drop=[id,name]", "epochs=30").out


def test_a_preview_creates_nothing(ffn: Command, tmp_path: Path) -> None:
    path = write_passengers(tmp_path / "t.csv")
    keys = ["data=csv", "data.path=t.csv", "data.target=survived", "data.preview=true"]
    result = ffn(*keys, "data.drop=[fare]")
    assert result.code == 0 and result.err == ""
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert lines[0] == "ffn-train: t.csv, 400 rows, 10 columns"
    taken = {line.split()[0]: line for line in lines[2:-1]}
    expected = {
        "id": "like an id", "sex": "category", "age": "blank: an error", "fare": "left out",
        "alone": "yes/no", "title": "Countess (3)", "survived": "target", "class": "few different numbers",
    }  # fmt: skip
    for name, words in expected.items():
        assert words in taken[name]
    assert list(tmp_path.iterdir()) == [path]
    assert ffn("-m", *keys, "seed=1,2").code == 2
    assert list(tmp_path.iterdir()) == [path]


def test_keys_of_before_read_back() -> None:
    """A run.json of an earlier release has none of the keys."""
    from cases import parsed
    from ffn_bench.configuration import parsing

    run = parsed("data=csv", "data.path=t.csv", "data.target=y", "data.delimiter=','")
    flat = schema.flatten(run)
    old = {key: value for key, value in flat.items() if key not in fingerprint.LATER}
    assert parsing.from_flat(old) == run
