"""Every mistake a person can make: one line that names the place, the right exit status, nothing created."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cases import write_csv
from conftest import Command, files_below

KEYS = [
    # (arguments, exit status, words the line must have)
    (["lrr=1"], 2, ["lrr", "lr"]),
    (["optimzer=adam"], 2, ["optimzer", "optimizer"]),
    (["+optimzer=adam"], 2, ["optimzer", "'optimizer'"]),
    (["model.widht=3"], 2, ["model.widht"]),
    (["+optimizer.momentum=0.9"], 2, ["optimizer.momentum", "betas"]),
    (["optimizer=adamm"], 2, ["optimizer", "'adam'"]),
    (["data=digit"], 2, ["data", "'digits'"]),
    (["lr="], 2, ["lr"]),
    (["optimizer="], 2, ["optimizer", "adam"]),
    (["name="], 2, ["name", "empty"]),
    (["lr=fast"], 2, ["lr", "fast"]),
    (["lr=true"], 2, ["lr"]),
    (["lr=[1]"], 2, ["lr"]),
    (["lr=nan"], 2, ["lr", "finite"]),
    (["lr=inf"], 2, ["lr", "finite"]),
    (["l2=-1"], 2, ["l2"]),
    (["lr=0"], 2, ["lr", "above 0"]),
    (["lr=-0.1"], 2, ["lr", "above 0"]),
    (["epochs=0"], 2, ["epochs"]),
    (["epochs=-3"], 2, ["epochs"]),
    (["epochs=1.5"], 2, ["epochs"]),
    (["epochs=true"], 2, ["epochs"]),
    (["log_every=0"], 2, ["log_every"]),
    (["seed=-1"], 2, ["seed", "use an integer in that range"]),
    (["batch_size=0"], 2, ["batch_size"]),
    (["batch_size=ful"], 2, ["batch_size", "full"]),
    (["batch_size=5000", "drop_last=true"], 2, ["batch_size", "1257"]),
    (["model.activation=rellu"], 2, ["model.activation", "'relu'", "sigmoid"]),
    (["model.init=he"], 2, ["model.init", "kaiming"]),
    (["model.init_std=0"], 2, ["model.init_std"]),
    (["schedule=linear"], 2, ["schedule", "cosine"]),
    (["schedule=step", "schedule.every=0"], 2, ["schedule.every"]),
    (["schedule=warmup_cosine", "schedule.warmup=2"], 2, ["schedule.warmup"]),
    (["gradient=magic"], 2, ["gradient", "autograd"]),
    (["engine=fast"], 2, ["engine", "compiled", "batched"]),
    (["engine=compiled", "optimizer=lbfgs", "batch_size=full"], 2, ["engine", "lbfgs", "engine=auto"]),
    (["engine=batched", "gradient=manual"], 2, ["engine", "gradient=manual", "engine=auto"]),
    (["-m", "engine=batched", "gradient=auto,manual"], 2, ["engine", "gradient=manual", "engine=auto"]),
    (["init_seed=-1"], 2, ["init_seed"]),
    (["order_seed=-1"], 2, ["order_seed"]),
    (["order_seed=first"], 2, ["order_seed"]),
    (["compile=true"], 2, ["compile", "was removed", "leave it out"]),
    (["-m", "hydra/launcher=batched", "seed=0,1"], 2, ["hydra/launcher", "workers"]),
    (["dtype=float16"], 2, ["dtype", "float32"]),
    (["model.hidden=[10,0]"], 2, ["model.hidden"]),
    (["model.hidden=[10,-2]"], 2, ["model.hidden"]),
    (["model.hidden=[ten]"], 2, ["model.hidden"]),
    (["model=mlp", "model.width=0"], 2, ["model.width"]),
    (["model=mlp", "model.depth=-1"], 2, ["model.depth"]),
    (["model=mlp", "model.width=90000000"], 5, ["90,000,000", "GB", "free"]),
    (["device=cuda:77"], 5, ["cuda:77", "cpu"]),
    (["device=gpu"], 2, ["device", "cuda"]),
    (["keep=first"], 2, ["keep", "best, last"]),
    (["keep=null"], 2, ["keep", "text"]),
    (["monitor=roc_auc/train"], 2, ["monitor", "'roc_auc/train' is not known", "'roc_auc/val'"]),
    (["monitor=roc_auc"], 2, ["monitor", "'roc_auc", "use one of"]),
    (
        ["monitor=macro_f1/val", "data.val_fraction=0"],
        2,
        ["monitor", "no validation part", "data.val_fraction"],
    ),
    (["monitor=los/val"], 2, ["monitor", "'loss/val'", "use one of"]),
    (["monitor=accuracy"], 2, ["monitor", "'accuracy", "use one of"]),
    (["monitor=loss/train"], 2, ["monitor", "not measured at the ends of epochs", "accuracy/train"]),
    (["monitor=grad_norm"], 2, ["monitor", "no better and worse values"]),
    (["monitor=curvature/lambda_max", "log_curvature=1"], 2, ["monitor", "no better and worse values"]),
    (["monitor=loss/val", "data.val_fraction=0"], 2, ["monitor", "no validation part", "data.val_fraction"]),
    (["monitor=loss/test", "data.test_fraction=0"], 2, ["monitor", "no test part", "data.test_fraction"]),
    (["monitor="], 2, ["monitor", "empty"]),
    (["patience=0"], 2, ["patience", "at least 1"]),
    (["patience=-5"], 2, ["patience"]),
    (["patience=1.5"], 2, ["patience", "an integer or null"]),
    (["patience=true"], 2, ["patience"]),
    (["patience=5", "data.val_fraction=0"], 2, ["patience", "no validation part", "accuracy/train"]),
    (["-m", "seed=0,1", "patience=5,9", "data.val_fraction=0.2,0"], 2, ["patience", "no validation part"]),
    (["patience=5", "min_delta=-0.1"], 2, ["min_delta", "at least 0"]),
    (["patience=5", "min_delta=nan"], 2, ["min_delta", "finite"]),
    (["min_delta=small"], 2, ["min_delta", "a number"]),
    (["lr=1,2"], 2, ["lr", "-m"]),
    (["-m", "--cfg", "job", "lr=1,2"], 2, ["--cfg", "-m"]),
    (["+tune=random_25", "hydra.sweeper.search_seed=-1"], 2, ["search_seed", "-1"]),
    (["lr=0.1", "optimizer.lr=0.2"], 2, ["optimizer.lr"]),
    (["optimizer=lbfgs", "batch_size=32"], 2, ["batch_size", "full"]),
    (["optimizer=gd", "batch_size=32"], 2, ["batch_size", "full"]),
    (["optimizer=torch"], 2, ["optimizer.name"]),
    (["optimizer=torch", "optimizer.name=ASG"], 2, ["optimizer.name", "'ASGD'"]),
    (["optimizer=torch", "optimizer.name=SparseAdam"], 2, ["SparseAdam"]),
    (["optimizer=torch", "optimizer.name=ASGD", "+optimizer.options.lamb=1"], 2, ["lamb", "'lambd'"]),
    (["optimizer.betas=[1.5,0.9]"], 2, ["optimizer", "beta"]),
    (["optimizer.betas=[0.9]"], 2, ["optimizer"]),
    (["optimizer._target_=os.system"], 2, ["_target_"]),
    (["+data._target_=os.system"], 2, ["_target_"]),
    (["lr=${nowhere}"], 2, ["lr", "nowhere"]),
    (["lr=${l2}", "l2=${lr}"], 2, ["lr"]),
    (["~lr"], 2, ["lr"]),
    (["=1"], 2, ["no key"]),
    (["data.name=csv"], 2, ["data.name", "data=…"]),
    (["schedule.name=cosine"], 2, ["schedule.name", "schedule=…"]),
    (["optimizer=sgd", "optimizer.name=momentum"], 2, ["optimizer.name", "optimizer=…"]),
    (["optimizer.betas=[0.9,0.99,0.999]"], 2, ["optimizer.betas", "two"]),
    (["optimizer=lecture/adam", "optimizer.betas=[2,3]"], 2, ["optimizer.betas"]),
    (["optimizer=lecture/rmsprop", "optimizer.beta=5"], 2, ["optimizer.beta"]),
    (["optimizer=newton", "optimizer.damping=-1"], 2, ["optimizer.damping"]),
    (["optimizer=lbfgs", "optimizer.history_size=0"], 2, ["optimizer.history_size"]),
    (["optimizer=torch", "optimizer.name=Adam", "+optimizer.options.lr=5"], 2, ["lr=…"]),
    (
        ["optimizer=torch", "optimizer.name=ASGD", "optimizer.options.lambd=1"],
        2,
        ["+optimizer.options.lambd"],
    ),
    (["schedule=step", "schedule.gamma=10"], 2, ["schedule.gamma"]),
    (["model=mlp", "model.depth=100000000"], 2, ["model.depth"]),
    (["model.activation=ReLU"], 2, ["'relu'"]),
    (["data=moons", "data.n_samples=99999999999999999999999999"], 2, ["data.n_samples"]),
    (["data=circles", "data.factor=1.5"], 2, ["data.factor"]),
    (["data=friedman", "data.n_features=4"], 2, ["data.n_features", "at least 5"]),
    (["data=iris", "data.task=regression"], 2, ["data.task", "iris"]),
    (["data=diabetes", "data.task=classification"], 2, ["data.task", "diabetes"]),
    (["data=csv", "data.path='~nobody9/x.csv'", "data.target=y"], 3, ["~nobody9"]),
    (["name=."], 2, ["name"]),
    (["hydra.run.dir=/proc/x"], 4, ["/proc"]),
    (["--experimental-rerun", "x"], 2, ["pickle"]),
    (["-m", "seed=range(0,1000000000)"], 2, ["max_runs"]),
    (["lr=null"], 2, ["lr", "null"]),
    (["model=null"], 2, ["model", "null"]),
    (["optimizer.betas=null"], 2, ["optimizer.betas", "null"]),
    (["batch_size=1e3"], 2, ["batch_size", "an integer", "full"]),
    (["model.hidden=[[1]]"], 2, ["model.hidden"]),
    (["model.hidden=5"], 2, ["model.hidden"]),
    (["seed=99999999999999999999"], 2, ["seed"]),
    (["hydra.run.dir="], 2, ["hydra.run.dir", "empty"]),
    (["--lr", "0.1"], 2, ["--lr", "lr=value"]),
    (["lr"], 2, ["lr", "key=value"]),
    (["lr=0.1,"], 2, ["lr=0.1,"]),
    (["data=csv"], 2, ["data."]),
    (["data.val_fraction=0.6", "data.test_fraction=0.5"], 2, ["data.val_fraction"]),
    (["data.val_fraction=-0.1"], 2, ["data.val_fraction"]),
    (["data=synthetic", "data.n_classes=100", "data.n_features=4"], 2, ["data.n_classes"]),
    (["name=../x"], 2, ["name", "../x"]),
    (["name=/etc/x"], 2, ["name"]),
    (["name=a b"], 2, ["name"]),
    (["name=sweeps/x"], 2, ["name"]),
    (["name=" + "x" * 300], 2, ["name", "too long"]),
    (["hydra.run.dir=../x"], 4, [".."]),
    (["hydra.run.dir=" + "x" * 300], 4, ["too long"]),
    (["-m", "lr=0.1,0.1"], 2, ["lr", "duplicated"]),
    (["-m", "lr=0.1,,0.2"], 2, ["lr"]),
    (["-m", "lr="], 2, ["lr"]),
    (["-m", "seed=range(3,3)"], 2, ["seed"]),
    (["-m", "seed=range(0,9)", "max_runs=8"], 2, ["max_runs", "9", "8"]),
    (["-m", "lr=0.1,0.2,abc"], 2, ["lr", "abc"]),
    (["-m", "optimizer=sgd,admm"], 2, ["optimizer", "'adam'"]),
    (["-m", "model.activation=relu,rellu"], 2, ["model.activation"]),
    (["-m", "lr=0.01,1e-2"], 2, ["lr", "duplicated"]),
    (["-m", "optimizer=adam,lbfgs", "batch_size=32"], 2, ["batch_size", "lbfgs"]),
]


def assert_one_line(result_err: str, words: list[str]) -> None:
    assert result_err.count("\n") == 1, result_err
    assert result_err.startswith("ffn-train: error: ")
    for word in words:
        assert word in result_err, result_err


@pytest.mark.parametrize(("arguments", "code", "words"), KEYS, ids=[" ".join(a)[:60] for a, _, _ in KEYS])
def test_wrong_keys(ffn: Command, tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    result = ffn(*arguments)
    assert_one_line(result.err, words)
    assert result.code == code
    assert list(tmp_path.iterdir()) == []


def test_output_folder_that_cannot_be(ffn: Command, tmp_path: Path) -> None:
    Path("outputs").write_text("a file")
    result = ffn("epochs=1")
    assert result.code == 4
    assert_one_line(result.err, ["outputs", "is a file"])
    assert files_below(tmp_path) == [tmp_path / "outputs"]


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/sys").is_dir(), reason="needs a read-only mount")
def test_output_folder_on_a_read_only_mount(ffn: Command) -> None:
    result = ffn("epochs=1", "hydra.run.dir=/proc/sys/x")
    assert result.code == 4
    assert_one_line(result.err, ["/proc/sys"])


def test_a_named_run_is_never_overwritten(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=1", "name=mine").code == 0
    before = {p: p.read_bytes() for p in files_below(tmp_path)}
    result = ffn("epochs=1", "name=mine", "lr=0.1")
    assert result.code == 4
    assert_one_line(result.err, ["outputs/mine", "never overwritten"])
    assert {p: p.read_bytes() for p in files_below(tmp_path)} == before


# --- a person's own YAML --------------------------------------------------------------------------------

HEAD = "# @package _global_\n"
BOMB = (
    HEAD
    + "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"{n}: &{n} [*{m},*{m},*{m},*{m},*{m},*{m},*{m},*{m},*{m},*{m}]\n"
        for m, n in zip("abcdef", "bcdefg", strict=True)
    )
)
YAML: dict[str, tuple[str | bytes, list[str]]] = {
    "duplicate key": (HEAD + "lr: 0.1\nlr: 0.2\n", ["line 3", "'lr'"]),
    "tab": (HEAD + "optimizer:\n\tlr: 0.1\n", ["line 3"]),
    "not utf-8": ("# caf\xe9\nlr: 0.1\n".encode("latin-1"), ["UTF-8"]),
    "empty": ("", ["empty"]),
    "comment only": ("# nothing\n", ["empty"]),
    "a list at top": ("- lr: 0.1\n", ["key: value"]),
    "a word at top": ("lr\n", ["key: value"]),
    "unresolved interpolation": (HEAD + "lr: ${nowhere}\n", ["lr", "nowhere"]),
    "cyclic interpolation": (HEAD + "lr: ${l2}\nl2: ${lr}\n", ["lr"]),
    "python object": (HEAD + "lr: !!python/object/apply:os.system ['touch canary']\n", ["line 2", "python"]),
    "defaults that are no list": ("defaults: 5\n", ["defaults", "list"]),
    "defaults of lists": ("defaults: [[a]]\n", ["defaults", "list"]),
    "defaults that name themselves": ("defaults: [x]\n", ["circular"]),
    "own tag": (HEAD + "lr: !secret 1\n", ["line 2", "!secret"]),
    "alias bomb": (BOMB, ["aliases"]),
    "alias of itself": (HEAD + "a: &a [*a]\n", ["itself"]),
    "nested for ever": (HEAD + "a: " + "[" * 5000 + "]" * 5000 + "\n", ["nested"]),
    "off": (HEAD + "model:\n  activation: off\n", ["line 3", "'off'"]),
    "next line": (HEAD + "# a note\x85lr: 5.0\n", ["line 2", "U+0085"]),
    "line separator": (HEAD + "# a note\u2028lr: 5.0\n", ["line 2", "U+2028"]),
    "paragraph separator": (HEAD + "# a note\u2029lr: 5.0\n", ["line 2", "U+2029"]),
    "carriage return": (HEAD + "# a note\rlr: 5.0\n", ["line 2", "U+000D"]),
    "octal": (HEAD + "epochs: 010\n", ["line 2", "octal"]),
    "sexagesimal": (HEAD + "epochs: 12:30:00\n", ["line 2", "base 60"]),
    "instantiation": (HEAD + "optimizer:\n  _target_: os.system\n", ["line 3", "_target_"]),
    "unclosed": (HEAD + "lr: [1\n", ["line 3"]),
    "unknown key": (HEAD + "lrr: 1\n", ["lrr", "'lr'"]),
    "wrong type": (HEAD + "lr: fast\n", ["lr", "fast"]),
    "unknown group option": ("# @package _global_\ndefaults: [{override /optimizer: adamm}]\n", ["'adam'"]),
    "two learning rates": (HEAD + "optimizer:\n  lr: 0.1\n", ["optimizer.lr"]),
}


@pytest.mark.parametrize("fault", YAML)
def test_faulty_yaml(ffn: Command, tmp_path: Path, fault: str) -> None:
    content, words = YAML[fault]
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = ffn("--config-dir", str(tmp_path / "mine"), "+experiment=x")
    assert_one_line(result.err, words)
    assert result.code == 2
    assert files_below(tmp_path) == [folder / "x.yaml"]


def test_a_fault_in_a_file_that_is_not_chosen_does_not_matter(ffn: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("a: [\n")
    (folder / "good.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: linear\nepochs: 1\n"
    )
    result = ffn("--config-dir", str(tmp_path / "mine"), "+experiment=good")
    assert result.code == 0, result.err
    assert "64 → 10," in result.out


# --- a person's own table -------------------------------------------------------------------------------

GOOD = "a,b,label\n" + "".join(f"{k},{k * 2},{'x' if k % 2 else 'y'}\n" for k in range(40))
CSV: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["empty"]),
    "header only": ("a,b,label\n", ["no rows"]),
    "short row": (GOOD + "1,x\n", ["line 42", "2 cells", "3"]),
    "long row": (GOOD + "1,2,x,9\n", ["line 42", "4 cells", "3"]),
    "blank cell": (GOOD + "1,,x\n", ["line 42", "'b'", "blank"]),
    "nan cell": (GOOD + "1,nan,x\n", ["line 42", "'b'", "nan"]),
    "inf cell": (GOOD + "1,-inf,x\n", ["line 42", "'b'", "inf"]),
    "overflowing cell": (GOOD + "1e999,1,x\n", ["line 42", "'a'", "inf"]),
    "text cell": (GOOD + "1,two,x\n", ["line 42", "'b'", "'two'"]),
    "line of a text cell after a long quoted one": (GOOD + '1,2,"x"\n1,"2\n3",x\n', ["line 44", "'b'"]),
    "underscore in a number": (GOOD + "1_0,2,x\n", ["line 42", "'1_0'"]),
    "digits of another script": (GOOD + "٣,2,x\n", ["line 42", "not a number"]),
    "too large to standardise": (GOOD + "1e308,1,x\n-1e308,1,y\n", ["too large"]),
    "duplicate header": (GOOD.replace("a,b,", "a,a,"), ["line 1", "'a'", "duplicated"]),
    "unnamed column": (GOOD.replace("a,b,", "a,,"), ["line 1", "name"]),
    "wrong encoding": ("a,b,label\n1,2,caf\xe9\n".encode("latin-1"), ["UTF-8", "0xe9"]),
    "nul": (GOOD.replace("3,6,x", "3,\x006,x"), ["line 5", "NUL"]),
    "unclosed quote": (GOOD + '1,2,"x\n', ["quote"]),
    "target missing": (GOOD.replace("label", "lable"), ["data.target", "'lable'", "a, b"]),
    "blank label": (GOOD + "1,2,\n", ["line 42", "label"]),
    "one class": ("a,b,label\n" + "1,2,x\n" * 30, ["one class", "'x'"]),
    "rare class": (GOOD + "1,2,rare\n", ["'rare'", "1 row"]),
    "fewer rows than splits": ("a,b,label\n1,2,x\n2,3,y\n", ["class"]),
    "measured target": (
        "a,label\n" + "".join(f"{k},{k / 7}\n" for k in range(50)),
        ["different labels", "50"],
    ),
    "control characters": (GOOD + "1,\x1b[31mred,x\n", ["\\x1b"]),
}


@pytest.mark.parametrize("fault", CSV)
def test_faulty_csv(ffn: Command, tmp_path: Path, fault: str) -> None:
    content, words = CSV[fault]
    table = tmp_path / "my.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = ffn("data=csv", "data.path=my.csv", "data.target=label", "epochs=1")
    assert_one_line(result.err, words)
    assert result.code == 3
    assert files_below(tmp_path) == [table]


def test_csv_that_is_no_file(ffn: Command, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(2**42)  # 4 TB of nothing
    cases = {"no.csv": "no such file", "folder.csv": "folder", "pipe.csv": "regular", "huge.csv": "GB"}
    for name, word in cases.items():
        result = ffn("data=csv", f"data.path={name}", "data.target=label")
        assert result.code == 3
        assert_one_line(result.err, [name, word])
    assert not (tmp_path / "outputs").exists()


def test_constant_feature_is_a_warning(ffn: Command, tmp_path: Path) -> None:
    lines = write_csv(tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([f"same,{lines[0]}", *(f"5,{line}" for line in lines[1:])]))
    result = ffn("data=csv", "data.path=t.csv", "data.target=label", "epochs=1")
    assert result.code == 0, result.err
    assert "1 of 3 features are constant" in result.out


def test_missing_images_are_named(ffn: Command, tmp_path: Path) -> None:
    result = ffn("data=mnist", f"data.root={tmp_path}", "data.download=false")
    assert result.code == 3
    assert_one_line(
        result.err, ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", f"{tmp_path}/MNIST/raw"]
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback(ffn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ffn_bench.engine.loop.build_schedule", bug)
    result = ffn("epochs=1")
    assert result.code == 1
    assert "Traceback" in result.err
    assert "ZeroDivisionError: a bug" in result.err


@pytest.mark.parametrize("delimiter", ["tab", "\\t", "'\t'"])
def test_a_table_of_tabs(ffn: Command, tmp_path: Path, delimiter: str) -> None:
    text = write_csv(tmp_path / "t.tsv", 100).read_text()
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    result = ffn(
        "data=csv", "data.path=t.tsv", "data.target=label", f"data.delimiter={delimiter}", "epochs=1"
    )
    assert result.code == 0, result.err
    assert ffn("data=csv", "data.path=t.tsv", "data.target=label", "epochs=1").code == 0  # it is found out
    hint = ffn("data=csv", "data.path=t.tsv", "data.target=label", "data.delimiter=','")
    assert_one_line(hint.err, ["data.delimiter=tab"])


def test_a_flag_may_stand_behind_settings(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=1", "data=moons", "-m", "lr=0.1,0.2").code == 0
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/*/summary.json"))) == 2


def test_a_run_inside_a_run_is_refused(ffn: Command) -> None:
    assert ffn("epochs=1", "data=moons", "name=a").code == 0
    result = ffn("epochs=1", "data=moons", "name=a/checkpoint")
    assert result.code == 4
    assert_one_line(result.err, ["inside the run"])


def test_version(ffn: Command) -> None:
    assert ffn("--version").out == "ffn-bench 0.1.0\n"
