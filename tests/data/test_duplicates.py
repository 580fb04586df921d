"""Equal rows in several splits: counted and reported, or kept together; older runs stay the same runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import parsed
from conftest import Command
from ffn_bench.compare import axes, read
from ffn_bench.configuration import fingerprint, parsing, schema, validation
from ffn_bench.configuration.schema import SplitDataConfig, TorchvisionConfig
from ffn_bench.data import preparation, rows, splitting
from ffn_bench.data.rows import Array, Data, Raw, Rows
from ffn_bench.errors import DATA, UserError
from ffn_bench.run_folder import finding
from run_folders import write_run

FINGERPRINT = "0e76873e6d18e3e756ad30f74e8e911ff4a6e4157deb7219bea4ea26b59754a8"
"""Of `ffn-train` without arguments before there was `data.duplicates`."""


def prepared(raw: Raw, duplicates: str, seed: int = 0, **fractions: Any) -> Data[Array]:
    """The splits as they are loaded, not standardised."""
    run = SplitDataConfig(name="x", duplicates=duplicates, split_seed=seed, standardize=False)
    run = replace(run, **fractions)
    return preparation.prepare(raw, run)


def rows_of(split: rows.Split[Array]) -> list[tuple[float, ...]]:
    return [tuple(row) for row in split.x.tolist()]


def bytes_of(data: Data[Array]) -> list[bytes]:
    return [t.tobytes() for split in (data.train, data.val, data.test) for t in split if t is not None]


def shared(data: Data[Array]) -> tuple[int, int]:
    """Rows of validation that are in training, and of test that are in either, counted one by one."""
    train, val, test = (rows_of(p) for p in (data.train, data.val, data.test))
    return sum(r in set(train) for r in val), sum(r in {*train, *val} for r in test)


@st.composite
def tables(draw: st.DrawFn) -> Raw:
    """Groups of equal rows, a few or many, perhaps one of them giant, with labels at odds with each other;
    the first column says which row it is of all."""
    n_groups = draw(st.integers(2, 60))
    n_rows = draw(
        st.lists(st.integers(1, draw(st.sampled_from([1, 2, 6]))), min_size=n_groups, max_size=n_groups)
    )
    if draw(st.booleans()):
        n_rows[0] = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    group = rng.permutation(np.repeat(np.arange(n_groups), n_rows))
    n_classes = draw(st.integers(2, 5))
    y = rng.integers(0, n_classes, len(group)) if draw(st.booleans()) else group % n_classes
    x = np.stack([group // 7, group % 7], axis=1).astype(np.float64)
    x[(x == 0) & (rng.random(x.shape) < 0.5)] = -0.0
    return Raw(x, y, tuple(map(str, range(n_classes))))


@settings(max_examples=300)
@given(
    raw=tables(),
    seed=st.integers(0, 3),
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_groups_stay_whole_and_splits_are_near_their_sizes(
    raw: Raw, seed: int, sizes: tuple[int, int]
) -> None:
    sizes = (min(sizes[0], len(raw.y) // 3), min(sizes[1], len(raw.y) // 3))
    groups = splitting.equal_rows(raw.x)
    values = [tuple(row) for row in raw.x.tolist()]
    assert groups.tolist() == [values.index(row) for row in values]

    def split_rows() -> list[Array]:
        return splitting.grouped_splits(raw.y, groups, sizes, np.random.default_rng(seed))

    try:
        splits = split_rows()
    except UserError as e:
        assert e.status == DATA and "\n" not in str(e)
        assert "split empty" in e.what
        return
    assert all(np.array_equal(a, b) for a, b in zip(splits, split_rows(), strict=True))
    assert sorted(np.concatenate(splits).tolist()) == list(range(len(raw.y)))
    own = [set(groups[split].tolist()) for split in splits]
    assert sum(map(len, own)) == len(np.unique(groups))
    assert all(len(split) > 0 for split, size in zip(splits, (*sizes, 1), strict=True) if size)
    n_rows = np.bincount(groups)
    movable = n_rows[n_rows < 2 * max(sizes)].sum()
    for split, size in zip(splits, sizes, strict=False):
        expected = size if movable >= sum(sizes) else size * movable // max(sum(sizes), 1)
        left_over = n_rows[list(own[-1])]
        assert (abs(len(split) + left_over - expected) >= abs(len(split) - expected)).all()


@pytest.mark.parametrize("equal_hashes", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "int64"])
@pytest.mark.parametrize("copies", [0, 3, 300])
def test_equal_rows(dtype: str, copies: int, equal_hashes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few copies, many, none; rows of any number of bytes; rows that have equal hashes and are different."""
    rng = np.random.default_rng(0)
    if equal_hashes:  # of a row and its columns in another order
        factors = type("Generator", (), {"integers": lambda *_, size, dtype: np.zeros(size, dtype)})
        monkeypatch.setattr(np.random, "default_rng", lambda *_: factors())
    for width in (1, 2, 3, 8, 16):
        x = rng.permutation(2**16)[: 400 * width].reshape(400, width)
        x[5] = x[4, ::-1]
        x = x.view(np.uint8).astype(dtype) if dtype == "uint8" else x.astype(dtype) - 7 * (dtype != "uint8")
        for _ in range(copies):
            x[rng.integers(400)] = x[rng.integers(400)]
        if x.dtype.kind == "f":
            x[7], x[9] = 0.0, -0.0
        rows = [tuple(row) for row in x.tolist()]
        groups = splitting.equal_rows(x)
        assert groups.dtype == np.int64
        assert groups.tolist() == [rows.index(row) for row in rows]


@settings(max_examples=200)
@given(raw=tables(), seed=st.integers(0, 3), standard=st.booleans())
def test_the_count_is_right_and_0_when_kept_together(raw: Raw, seed: int, standard: bool) -> None:
    fractions = {} if standard else {"val_fraction": 0.3, "test_fraction": 0.2}
    try:
        plain = prepared(raw, "warn", seed, **fractions)
    except UserError as e:
        assert e.what.startswith("class ")
        return
    n_val, n_test = shared(plain)
    warnings = [w for w in plain.warnings if "their scores may be too good" in w]
    assert len(warnings) == (n_val + n_test > 0)
    for n, split, words in ((n_val, plain.val, "validation rows"), (n_test, plain.test, "test rows")):
        assert (f"{n} of {len(split.y)} {words}" in "".join(warnings)) == (n > 0)
    try:
        kept = prepared(raw, "keep_together", seed, **fractions)
    except UserError as e:
        assert e.status == DATA and "\n" not in str(e)
        return
    assert shared(kept) == (0, 0)
    assert not kept.warnings
    every = sorted(zip(raw.x.tolist(), raw.y.tolist(), strict=True))
    remaining = [
        pair
        for p in (kept.train, kept.val, kept.test)
        for pair in zip(p.x.tolist(), p.y.tolist(), strict=True)
    ]
    assert sorted(remaining) == every
    if n_val + n_test == 0 and len(np.unique(splitting.equal_rows(raw.x))) == len(raw.y):
        assert bytes_of(kept) == bytes_of(plain)


@settings(max_examples=100)
@given(n=st.integers(100, 300), n_classes=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_without_duplicates_the_splits_are_the_same_to_the_bit(n: int, n_classes: int, seed: int) -> None:
    x = np.random.default_rng(seed).permutation(n)[:, None].astype(np.float64)
    raw = Raw(x, np.arange(n) % n_classes, tuple(map(str, range(n_classes))))
    plain, kept = prepared(raw, "warn", seed), prepared(raw, "keep_together", seed)
    assert plain.warnings == kept.warnings == ()
    assert bytes_of(plain) == bytes_of(kept)


def test_classes_keep_their_proportions_in_groups() -> None:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(1000), rng.integers(1, 7, 1000)))
    y = np.array([0] * 600 + [1] * 300 + [2] * 100)[group]
    data = prepared(Raw(group[:, None] + 0.0, y, ("a", "b", "c")), "keep_together")
    for split in (data.train, data.val, data.test):
        proportions = np.bincount(split.y, minlength=3) / len(split.y)
        assert np.abs(proportions - np.bincount(y) / len(y)).max() < 0.03
    assert abs(len(data.val.y) - 0.15 * len(y)) <= 1 and abs(len(data.test.y) - 0.15 * len(y)) <= 1


def test_a_giant_group_shrinks_the_splits_or_is_one_line() -> None:
    def giant(others: int) -> Raw:
        x = np.concatenate([np.zeros(900), np.arange(1, others + 1)])[:, None]
        return Raw(x, np.arange(len(x)) % 2, ("a", "b"))

    data = prepared(giant(100), "keep_together")
    assert (len(data.train.y), len(data.val.y), len(data.test.y)) == (900, 50, 50)
    with pytest.raises(UserError) as e:
        prepared(giant(1), "keep_together")
    assert str(e.value).startswith(
        "data.duplicates: keep_together leaves the test split empty: of the 901 rows"
    )
    assert e.value.status == DATA


@settings(max_examples=100)
@given(raw=tables(), n_test=st.integers(1, 30), seed=st.integers(0, 3), pixels=st.booleans())
def test_rows_of_a_test_set_of_its_own_are_left_out(raw: Raw, n_test: int, seed: int, pixels: bool) -> None:
    cut = min(n_test, len(raw.y) // 3)
    x = raw.x.astype(np.uint8) if pixels else raw.x
    known = {tuple(row) for row in x[:cut].tolist()}
    overlap = sum(tuple(row) in known for row in x[cut:].tolist())
    own = Raw(x[cut:], raw.y[cut:], raw.classes, test=Rows(x[:cut], raw.y[:cut]))

    def load(duplicates: str) -> Data[Array]:
        run = TorchvisionConfig(
            name="x", duplicates=duplicates, split_seed=seed, standardize=False, val_fraction=0.2
        )
        return preparation.prepare(own, run)

    try:
        plain = load("warn")
        assert f"{shared(plain)[1]} of {cut} test rows" in "".join(plain.warnings) or not shared(plain)[1]
        assert len(plain.train.y) + len(plain.val.y) == len(raw.y) - cut
        kept = load("keep_together")
    except UserError as e:
        assert e.status == DATA and "\n" not in str(e)
        return
    assert shared(kept) == (0, 0)
    assert len(kept.train.y) + len(kept.val.y) == len(raw.y) - cut - overlap
    assert len(kept.test.y) == cut
    warning = f"{overlap} training rows that are also in the test split are left out"
    assert kept.warnings == ((warning,) if overlap else ())


def test_a_training_set_that_is_in_the_test_set_is_one_line() -> None:
    x, y = np.arange(40.0)[:, None], np.arange(40) % 2
    with pytest.raises(UserError, match="every training row is also in the test split"):
        preparation.prepare(
            Raw(x, y, ("a", "b"), test=Rows(x, y)), TorchvisionConfig(name="x", duplicates="keep_together")
        )


# --- through the command --------------------------------------------------------------------------------


def write_random_labels(file: Path) -> None:
    """200 different rows with random labels of two classes, six times each."""
    rng = np.random.default_rng(0)
    lines = [",".join(map(str, rng.normal(size=8).round(3))) + f",{rng.integers(2)}" for _ in range(200)]
    file.write_text("a,b,c,d,e,f,g,h,label\n" + "\n".join(lines * 6) + "\n")


RANDOM = ("data=csv", "data.path=t.csv", "data.target=label", "model=mlp", "model.depth=1", "epochs=30")
WARNING = (
    "180 of 180 validation rows are also in training, "
    "180 of 180 test rows are also in training or validation: "
    "their scores may be too good; data.duplicates=keep_together keeps equal rows in one split"
)


def test_random_labels_each_row_six_times(ffn: Command, tmp_path: Path) -> None:
    write_random_labels(tmp_path / "t.csv")
    scores = {}
    for duplicates in validation.DUPLICATES:
        result = ffn(*RANDOM, f"data.duplicates={duplicates}", f"name={duplicates}")
        assert result.code == 0, result.err
        log = (tmp_path / "outputs" / duplicates / "train.log").read_text()
        assert result.out.count(WARNING) == log.count(WARNING) == (duplicates == "warn")
        summary = json.loads((tmp_path / "outputs" / duplicates / "summary.json").read_text())
        scores[duplicates] = summary["final"]["accuracy/val"]
    assert scores["warn"] > 0.75
    assert abs(scores["keep_together"] - 0.5) < 0.15


def test_a_sweep_tells_of_its_data_once(ffn: Command, tmp_path: Path) -> None:
    write_random_labels(tmp_path / "t.csv")
    swept = ("seed=1,2", "lr=0.1,0.2", "data.split_seed=0,1", "model.width=3,4")
    result = ffn("-m", *RANDOM, "epochs=1", *swept)
    assert result.code == 0, result.err
    assert result.out.count("their scores may be too good") == 1
    assert f"  warning    csv: {WARNING}\n" in result.out


def test_an_unknown_word_is_one_line(ffn: Command) -> None:
    result = ffn("data.duplicates=keep_togther")
    assert result.code == 2
    assert result.err.startswith("ffn-train: error: data.duplicates: 'keep_togther' is not known")
    assert "use one of: warn, keep_together" in result.err


# --- runs from before the key ---------------------------------------------------------------------------


def test_fingerprints_of_before_stay() -> None:
    assert (
        fingerprint.fingerprint(parsed())
        == fingerprint.fingerprint(parsed("data.duplicates=warn"))
        == FINGERPRINT
    )
    assert fingerprint.fingerprint(parsed("data.duplicates=keep_together")) != FINGERPRINT


def test_a_configuration_of_before_is_the_default() -> None:
    flat = schema.flatten(parsed())
    del flat["data.duplicates"]
    assert parsing.from_flat(flat) == parsed()


def forget_the_key(folder: Path) -> None:
    """Make a run.json as it was written before."""
    for file in folder.rglob("run.json"):
        identity = json.loads(file.read_text())
        del identity["config"]["data.duplicates"]
        file.write_text(json.dumps(identity, indent=2) + "\n")


def test_a_run_of_before_goes_on_and_no_other_in_its_folder(ffn: Command, tmp_path: Path) -> None:
    assert ffn("name=x", "epochs=1").code == 0
    folder = tmp_path / "outputs" / "x"
    forget_the_key(folder)
    (folder / "summary.json").unlink()
    assert ffn("name=x", "epochs=1").code == 0
    result = ffn("name=x", "epochs=1", "data.duplicates=keep_together")
    assert result.code == 4
    assert "data.duplicates was warn, now keep_together" in result.err


def test_a_sweep_of_before_is_extended_as_the_default(ffn: Command, tmp_path: Path) -> None:
    assert ffn("-m", "name=s", "epochs=1", "seed=1,2").code == 0
    forget_the_key(tmp_path / "outputs")
    sweep = ("-m", "name=s", "epochs=1", "seed=1,2,3")
    result = ffn(*sweep, "data.duplicates=keep_together")
    assert result.code == 4
    assert "data.duplicates" in result.err
    result = ffn(*sweep)
    assert result.code == 0, result.err
    assert "2 runs have already ended" in result.out


def test_a_run_of_before_is_compared_as_the_default(tmp_path: Path) -> None:
    for seed, optimizer in enumerate(("adam", "sgd")):
        write_run(tmp_path / optimizer, f"optimizer={optimizer}", seed=seed)
    forget_the_key(tmp_path / "sgd")
    runs, problems = read.read_all(finding.find([str(tmp_path)]))
    assert not problems
    assert axes.find(runs, by=["optimizer"]).compared == ("optimizer.name",)
    write_run(tmp_path / "other", "optimizer=adam", data__duplicates="keep_together")
    runs, _ = read.read_all(finding.find([str(tmp_path)]))
    with pytest.raises(UserError, match=r"use different data \(data.duplicates: keep_together, warn\)"):
        axes.find(runs, by=["optimizer"])
