"""The compiled engine against autograd and torch.optim; its promises of equal bits; its cache; misuse."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import itertools
import math
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

import ffn_bench
from ffn_bench.engine.compiled import machine_code
from ffn_bench.engine.compiled.cache import Cache, digest_of
from ffn_bench.engine.compiled.compiled_engine import TABLE, CompiledEngine
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.optimizers import torch_optimizers
from rule_cases import PYTORCHS, RULE_CASES, RuleCase

Numbers = NDArray[Any]
SOURCES = Path(ffn_bench.__file__).parents[1]


ADAM = RuleCase("adam")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A run: a network, its data, an update rule."""

    rule: RuleCase = ADAM
    activation: str = "tanh"
    widths: tuple[int, ...] = (6, 9, 7, 5)
    n: int = 50
    batch: int = 16
    l2: float = 0.0
    dtype: str = "float64"
    steps: int = 300
    decayed: bool = False

    def __str__(self) -> str:
        widths = "-".join(map(str, self.widths))
        decay = "-decayed" if self.decayed else ""
        return f"{self.rule}-{self.activation}-{widths}-b{self.batch}-l2={self.l2}-{self.dtype}{decay}"

    def rates(self, steps: range) -> NDArray[np.float64]:
        """The schedule: constant, or falling along a cosine."""
        t = np.array(steps, np.float64) / self.steps
        factors = 0.5 + 0.5 * np.cos(np.pi * t) if self.decayed else np.ones(len(t))
        return np.float64(self.rule.hyper["lr"]) * factors

    def data(self) -> tuple[Numbers, NDArray[np.int64], Numbers]:
        """x, y and the first θ."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.n, self.widths[0])).astype(self.dtype)
        y = rng.integers(0, self.widths[-1], self.n)
        layers = itertools.pairwise(self.widths)
        θ = [rng.standard_normal((n_in + 1) * n_out) / math.sqrt(n_in) for n_in, n_out in layers]
        return x, y, np.concatenate(θ).astype(self.dtype)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Rows in the order in which an epoch visits them."""
        return np.random.default_rng(epoch).permutation(self.n)

    def engine(self, **changes: Any) -> CompiledEngine:
        x, y, θ = self.data()
        arguments = {
            "widths": self.widths, "activation": self.activation, "rule": self.rule.rule,
            "hyper": self.rule.hyper, "rates": self.rates, "x": x, "y": y, "batch_size": self.batch,
            "steps": self.steps, "l2": self.l2, "θ": θ,
        }  # fmt: skip
        return CompiledEngine(**{**arguments, **changes})


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of these tests' own, which pytest-xdist's workers share, and float64 as PyTorch's default: in
    it NAdam keeps its product."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFN_BENCH_CACHE_DIR", str(folder))
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def trained(engine: CompiledEngine, case: Case, per_call: int = 10**6, log_every: int = 7) -> tuple[Any, Any]:
    """Losses `[steps, 2]` and norms of a whole run."""
    losses, norms = [], []
    per_epoch = -(-case.n // case.batch)
    while engine.step < case.steps:
        epoch, done = divmod(engine.step, per_epoch)
        engine.begin_epoch(case.order(epoch), done)
        while (advanced := engine.advance(per_call, log_every)).losses.size:
            losses.append(advanced.losses)
            norms.append(advanced.norms)
            if not np.isfinite(advanced.losses[-1, 1]):
                return np.concatenate(losses), np.concatenate(norms)
    return np.concatenate(losses), np.concatenate(norms)


# --- against PyTorch ------------------------------------------------------------------------------------


def lecture_step(name: str, hyper: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any], float, int], Any]:
    """θ after one step by the lecture's equations (L14)."""
    ε = hyper.get("eps")

    def momentum(θ: Any, g: Any, s: dict[str, Any], η: float, t: int) -> Any:
        s["v"] = hyper["alpha"] * g + (1 - hyper["alpha"]) * s.get("v", 0)
        return θ - η * s["v"]

    def adagrad(θ: Any, g: Any, s: dict[str, Any], η: float, t: int) -> Any:
        s["γ"] = s.get("γ", 0) + g * g
        return θ - η / (ε + s["γ"]).sqrt() * g

    def rmsprop(θ: Any, g: Any, s: dict[str, Any], η: float, t: int) -> Any:
        s["γ"] = hyper["beta"] * s.get("γ", 0) + (1 - hyper["beta"]) * g * g
        return θ - η / (ε + s["γ"]).sqrt() * g

    def adam(θ: Any, g: Any, s: dict[str, Any], η: float, t: int) -> Any:
        β1, β2 = hyper["betas"]
        s["s"] = β1 * s.get("s", 0) + (1 - β1) * g
        s["γ"] = β2 * s.get("γ", 0) + (1 - β2) * g * g
        return θ - η / (ε + s["γ"] / (1 - β2**t)).sqrt() * s["s"] / (1 - β1**t)

    return {"momentum": momentum, "adagrad": adagrad, "rmsprop": rmsprop, "adam": adam}[name]


class Reference:
    """The same run by autograd and torch.optim, or the lecture's equations on tensors."""

    def __init__(self, case: Case) -> None:
        self.case = case
        x, y, θ = case.data()
        self.x, self.y, self.tensors, at = torch.tensor(x), torch.tensor(y), [], 0
        for n_in, n_out in itertools.pairwise(case.widths):
            for shape in ((n_in, n_out), (n_out,)):
                size = math.prod(shape)
                self.tensors.append(torch.tensor(θ[at : at + size].reshape(shape), requires_grad=True))
                at += size

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        layers = list(zip(self.tensors[::2], self.tensors[1::2], strict=True))
        for W, b in layers[:-1]:
            x = PYTORCHS[self.case.activation](x @ W + b)
        return x @ layers[-1][0] + layers[-1][1]

    def θ(self) -> torch.Tensor:
        return torch.cat([t.detach().reshape(-1) for t in self.tensors])

    def run(self) -> tuple[Any, Any]:
        """Losses and objectives of all steps, and ‖g‖, ‖θ‖, ‖θ after − before‖, ‖θ‖ before, of all steps."""
        case = self.case
        hyper, name = case.rule.hyper, case.rule.name
        lecture = name.startswith("lecture/")
        states: list[dict[str, Any]] = [{} for _ in self.tensors]
        step_of = lecture_step(name.removeprefix("lecture/"), hyper) if lecture else None
        optimizer = None if lecture else torch_optimizers.OPTIMIZERS[name](self.tensors, **hyper)
        rates, losses, norms = case.rates(range(case.steps)), [], []
        batches = (
            rows for epoch in itertools.count() for rows in torch.tensor(case.order(epoch)).split(case.batch)
        )
        for t, (rate, rows) in enumerate(zip(rates, batches, strict=False), start=1):
            loss = cross_entropy(self.logits(self.x[rows]), self.y[rows])
            objective = loss + case.l2 * sum(W.square().sum() for W in self.tensors[::2])
            before = self.θ()
            gradients = torch.autograd.grad(objective, self.tensors)
            if optimizer is not None:
                optimizer.param_groups[0]["lr"] = rate
                for tensor, gradient in zip(self.tensors, gradients, strict=True):
                    tensor.grad = gradient
                optimizer.step()
            else:
                assert step_of is not None
                with torch.no_grad():
                    for tensor, gradient, state in zip(self.tensors, gradients, states, strict=True):
                        tensor.copy_(step_of(tensor.detach().clone(), gradient, state, float(rate), t))
            g, after = torch.cat([g.reshape(-1) for g in gradients]), self.θ()
            losses.append((loss.item(), objective.item()))
            norms.append([v.norm().item() for v in (g, after, after - before, before)])
        return np.array(losses), np.array(norms)


def cases_of_rules() -> Iterator[Case]:
    """Every rule and variant; activations, batches, penalties and schedules take turns."""
    activations, batches = itertools.cycle(ACTIVATIONS), itertools.cycle([16, 50, 7])
    l2s, decays = itertools.cycle([0.0, 1e-3]), itertools.cycle([False, True, True])
    for rule in RULE_CASES:
        yield Case(
            rule=rule, activation=next(activations), batch=next(batches), l2=next(l2s), decayed=next(decays)
        )


CASES = [
    *cases_of_rules(),
    *(Case(activation=name, l2=1e-3, steps=100) for name in ACTIVATIONS),
    Case(batch=1), Case(batch=50), Case(n=300, batch=130, steps=100), Case(n=300, batch=300, steps=60),
    Case(widths=(5, 3)), Case(widths=(1, 1, 2)), Case(widths=(65, 40, 33, 17, 16, 10), steps=60),
    Case(widths=(16, 32, 8), activation="relu", batch=32),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_is_pytorchs(case: Case) -> None:
    reference = Reference(case)
    losses, norms = reference.run()
    engine = case.engine()
    got, got_norms = trained(engine, case)
    np.testing.assert_allclose(got, losses, rtol=1e-9)
    logged = [t - 1 for t in range(1, case.steps + 1) if t % 7 == 0 or t == case.steps]
    np.testing.assert_allclose(got_norms, norms[logged], rtol=1e-8)
    np.testing.assert_allclose(engine.θ, reference.θ(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_single_precision_follows_double(activation: str) -> None:
    """As far as rounding allows."""
    case = Case(activation=activation, l2=1e-3, steps=20)
    double, _ = trained(case.engine(), case)
    single = dataclasses.replace(case, dtype="float32")
    x, _, θ = case.data()
    engine = single.engine(x=x.astype(np.float32), θ=θ.astype(np.float32))
    np.testing.assert_allclose(trained(engine, single)[0], double, rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 127, 300])
def test_evaluation_is_pytorchs(n: int, dtype: str) -> None:
    case = Case(n=n, dtype=dtype, batch=1)
    engine, reference = case.engine(), Reference(case)
    x, y, θ = case.data()
    rows = engine.rows(x, y)
    loss, logits = engine.evaluate(rows), rows.logits
    want = reference.logits(reference.x)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(logits, want.detach(), rtol=tolerance, atol=tolerance)
    assert loss == pytest.approx(cross_entropy(want, reference.y).item(), rel=tolerance)
    np.testing.assert_array_equal(engine.logits(x), logits)
    np.testing.assert_array_equal(engine.θ, θ)


def test_a_full_batch_needs_no_order() -> None:
    case = Case(batch=50, steps=5)
    losses = []
    for order in (None, np.arange(50)):
        engine = case.engine()
        for _ in range(5):
            engine.begin_epoch(order, 0)
            losses.append(engine.advance(10, 1).losses)
    np.testing.assert_array_equal(losses[:5], losses[5:])


# --- bits -----------------------------------------------------------------------------------------------


def bits(*arrays: Numbers) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


LONG = Case(steps=TABLE + 70, batch=16, dtype="float32", activation="gelu", l2=1e-3, decayed=True)


@pytest.mark.parametrize("rule", [RuleCase("adam"), RuleCase("nadam")], ids=str)
@pytest.mark.parametrize("per_call", [1, 3])
def test_bits_do_not_depend_on_steps_per_call(per_call: int, rule: RuleCase) -> None:
    case = dataclasses.replace(LONG, rule=rule)
    whole, parts = case.engine(), case.engine()
    expected, got = trained(whole, case), trained(parts, case, per_call)
    assert bits(*expected, whole.θ) == bits(*got, parts.θ)


@pytest.mark.parametrize("rule", RULE_CASES, ids=str)
def test_bits_do_not_depend_on_a_restore(rule: RuleCase) -> None:
    """In the middle of an epoch, in a new engine."""
    case = Case(rule=rule, steps=60, dtype="float32", activation="relu")
    whole = case.engine()
    expected = trained(whole, case)[0]
    first, second = case.engine(), case.engine()
    for epoch in range(3):
        first.begin_epoch(case.order(epoch), 0)
        first.advance(4 if epoch < 2 else 2, 7)
    assert first.step == 10
    second.restore(first.state(), first.step)
    assert second.advance(10, 1).losses.size == 0  # not before it knows where in which epoch
    got = trained(second, case)[0]
    assert bits(expected[10:], *whole.state().values()) == bits(got, *second.state().values())


def test_bits_do_not_depend_on_other_threads() -> None:
    engines = [LONG.engine() for _ in range(3)]
    threads = [threading.Thread(target=trained, args=(engine, LONG)) for engine in engines[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trained(engines[2], LONG)
    assert len({bits(engine.θ) for engine in engines}) == 1


def digests() -> list[str]:
    """Of the state after some epochs: every rule × some activations × both precisions."""
    lines = []
    for rule, activation, dtype in itertools.product(
        RULE_CASES, ("relu", "tanh", "gelu"), ("float32", "float64")
    ):
        case = Case(rule=rule, activation=activation, dtype=dtype, steps=20, l2=1e-3, n=40)
        engine = case.engine()
        losses, norms = trained(engine, case)
        x = case.data()[0]
        lines.append(f"{case} {bits(losses, norms, *engine.state().values(), engine.logits(x))}")
    return lines


def python(*command: str, sources: Path = SOURCES, **environment: str) -> str:
    """The output of a Python process of its own."""
    path = os.pathsep.join([str(sources), str(Path(__file__).parent), str(Path(__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, check=True, timeout=200,
    ).stdout  # fmt: skip


def test_bits_do_not_depend_on_the_vector_width() -> None:
    """Compiled for this processor and for one with AVX2 alone."""
    if "+avx2" not in machine_code.processor().features or "+fma" not in machine_code.processor().features:
        pytest.skip("this processor has no AVX2")
    program = "import test_compiled; print(*test_compiled.digests(), sep='\\n')"
    assert python("-c", program, NUMBA_CPU_NAME="haswell").splitlines() == digests()


# --- divergence and denormals ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_seen_at_its_step(value: float) -> None:
    case = Case(n=64, batch=8, steps=100)
    x, _, _ = case.data()
    x[case.order(0)[29]] = value  # of the fourth mini-batch
    engine = case.engine(x=x)
    engine.begin_epoch(case.order(0), 0)
    advanced = engine.advance(100, 3)
    assert engine.step == len(advanced.losses) == 4
    assert np.isfinite(advanced.losses[:3]).all()
    assert not np.isfinite(advanced.losses[3]).any()
    assert len(advanced.norms) == 2  # of step 3, and of the one that was the last


def test_a_diverging_run_stops_where_pytorch_has_no_number() -> None:
    case = Case(rule=RuleCase("sgd", (("lr", 1e4),)), activation="identity", steps=100, n=64)
    losses, norms = trained(case.engine(), case)
    finite = np.isfinite(Reference(case).run()[0][:, 1])
    assert len(losses) == np.argmin(finite) + 1 < 100
    assert len(norms) == len(losses) // 7 + (len(losses) % 7 > 0)


def test_denormals_are_zero_while_a_kernel_runs_and_only_then() -> None:
    """Momentum of a gradient that is 0 shrinks for ever: below the smallest normal number it is 0."""
    case = Case(rule=RuleCase("momentum"), dtype="float32", steps=2_000, widths=(2, 2))
    engine = case.engine(x=np.zeros((50, 2), np.float32), y=np.zeros(50, np.int64))
    engine.restore({"θ": np.ones(6, np.float32), "v": np.full(6, 1e-3, np.float32)}, 0)
    trained(engine, case)
    assert (engine.state()["v"][:4] == 0).all()  # of the weights: x is 0
    assert np.float32(1e-40) * np.float32(1) != 0


# --- the cache ------------------------------------------------------------------------------------------

PROGRAM = """
import hashlib, sys
import numpy as np
from ffn_bench.engine.compiled.compiled_engine import CompiledEngine
from ffn_bench.optimizers.rules import RULES

rng = np.random.default_rng(0)
x, y = rng.standard_normal((40, 3)).astype("f4"), rng.integers(0, 2, 40)
θ = rng.standard_normal(8).astype("f4")
engine = CompiledEngine(
    widths=(3, 2), activation="relu", rule=RULES["adagrad"], rates=lambda steps: np.full(len(steps), 0.1),
    hyper={"lr_decay": 0.0, "eps": 1e-8, "weight_decay": 0.0, "initial_accumulator_value": 0.0},
    x=x, y=y, batch_size=10, steps=4, l2=0.0, θ=θ,
)
engine.begin_epoch(None, 0)
losses = engine.advance(4, 1).losses
loaded = [name for name in ("torch", "numba") if name in sys.modules]
print(hashlib.sha256(losses.tobytes() + engine.θ.tobytes()).hexdigest(), loaded, engine.cache.problem)
"""
"""A short run, torch-free: prints a digest of its results, what was imported, and what the cache says."""


def copied(folder: Path, module: str, old: str, new: str) -> Path:
    """A copy of the package in which a text of one module is another."""
    shutil.copytree(SOURCES / "ffn_bench", folder / "ffn_bench", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "ffn_bench" / module
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return folder


def test_later_processes_import_neither_numba_nor_torch() -> None:
    first, second = python("-c", PROGRAM).split(" ", 1), python("-c", PROGRAM).split(" ", 1)
    assert first[0] == second[0]
    assert second[1].strip() == "[]"


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("optimizers/rules.py", "+ g * g\n    return θ - η * g / (", "+ g * g\n    return θ + η * g / ("),
        ("optimizers/elementwise.py", "return x.sqrt() if", "return x.sqrt() * 2 if"),
        ("engine/compiled/losses.py", "total.log()", "total"),
        ("engine/compiled/machine_code.py", "assembly(text)", "assembly(text.replace('fsub', 'fadd'))"),
        ("engine/compiled/kernels.py", "loss /= end - begin", "loss /= 2 * (end - begin)"),
    ],
)  # fmt: skip
def test_edited_code_is_not_served_as_it_was(module: str, old: str, new: str, tmp_path: Path) -> None:
    before = python("-c", PROGRAM)
    edited = python("-c", PROGRAM, sources=copied(tmp_path, module, old, new))
    assert edited.split()[0] != before.split()[0]
    assert python("-c", PROGRAM).split()[0] == before.split()[0]


def test_the_kernels_key_has_all_sources_of_theirs() -> None:
    """Every module of the package that is imported on the way to the kernels' machine code."""
    folder = Path(machine_code.__file__).parent
    pending, reached = ["machine_code.py", "kernels.py"], set()
    while pending:
        name = pending.pop()
        reached.add(name)
        imports = re.findall(
            r"^from ffn_bench\.engine\.compiled\.(\w+) import", (folder / name).read_text(), re.M
        )
        pending += [f"{module}.py" for module in imports if f"{module}.py" not in reached]
    assert reached - {"cache.py"} == set(machine_code.KERNEL_SOURCES)


def test_a_cache_is_keyed_by_the_processor_and_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    class Recorded(Cache):
        def get(self, key: str, compile_: Callable[[], bytes]) -> bytes:
            keys.append(key)
            return super().get(key, compile_)

    text = "define void @loop() {\n  ret void\n}\n"
    changes: list[Callable[[], Any]] = [
        lambda: None,
        functools.partial(monkeypatch.setattr, llvmlite, "__version__", "0"),
        functools.partial(monkeypatch.setenv, "NUMBA_CPU_NAME", "haswell"),
        functools.partial(monkeypatch.setenv, "NUMBA_CPU_FEATURES", "+avx2"),
    ]
    for change in changes:
        change()
        machine_code._full.cache_clear()  # a process has one llvmlite
        machine_code.function("loop", text, Recorded())
    assert len(set(keys)) == 4


def test_a_damaged_file_is_compiled_again(tmp_path: Path) -> None:
    cache, content = Cache(tmp_path), b"code" * 100
    key = digest_of("a")
    assert cache.get(key, lambda: content) == content
    assert cache.get(key, lambda: b"") == content
    (path,) = tmp_path.iterdir()
    for damaged in (path.read_bytes()[:-1], b"", path.read_bytes()[:-1] + b"?"):
        path.write_bytes(damaged)
        assert cache.get(key, lambda: content) == content
        assert cache.get(key, lambda: b"") == content


def test_a_file_that_others_may_write_is_not_run(tmp_path: Path) -> None:
    key = digest_of("a")
    Cache(tmp_path).get(key, lambda: b"planted")
    (path,) = tmp_path.iterdir()
    path.chmod(0o666)
    assert Cache(tmp_path).get(key, lambda: b"compiled") == b"compiled"
    assert Cache(tmp_path).get(key, lambda: b"") == b"compiled"
    assert not path.stat().st_mode & 0o077


def test_two_writers_at_once(tmp_path: Path) -> None:
    """One sees the other's file whole or not at all, and nothing is left over."""
    contents = {digest_of(str(k)): str(k).encode() * 10_000 for k in range(20)}

    def use() -> None:
        for key, content in contents.items():
            assert Cache(tmp_path).get(key, functools.partial(contents.__getitem__, key)) == content

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{key}.code" for key in contents)


def test_two_processes_at_once_on_an_empty_cache(tmp_path: Path) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: outputs.append(python("-c", PROGRAM, FFN_BENCH_CACHE_DIR=str(tmp_path)))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({output.split()[0] for output in outputs}) == 1
    assert {p.suffix for p in tmp_path.iterdir()} == {".code"}


def test_an_unwritable_cache_is_said_and_does_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = python("-c", PROGRAM, FFN_BENCH_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert output.split()[0] == python("-c", PROGRAM).split()[0]
    assert "compiled code is not kept: " in output
    assert "cannot be written (not a directory)" in output


def test_a_read_only_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = digest_of("a")
    Cache(tmp_path).get(key, lambda: b"kept")

    def refuse(**options: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(os, "utime", lambda path: refuse())
    cache = Cache(tmp_path)
    assert cache.get(key, lambda: b"") == b"kept"
    assert not cache.problem
    assert cache.get(digest_of("b"), lambda: b"new") == b"new"
    assert "read-only file system" in cache.problem


def test_what_is_long_unused_is_removed(tmp_path: Path) -> None:
    Cache(tmp_path).get(digest_of("old"), lambda: b"old")
    Cache(tmp_path).get(digest_of("used"), lambda: b"used")
    (tmp_path / f"{digest_of('killed')}.a1.new").write_text("left by a process that was killed")
    (tmp_path / "my.code").write_text("another program's")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert Cache(tmp_path).get(digest_of("used"), lambda: b"") == b"used"
    Cache(tmp_path).get(digest_of("new"), lambda: b"new")
    assert {p.stem for p in tmp_path.iterdir()} == {digest_of("used"), digest_of("new"), "my"}


# --- misuse ---------------------------------------------------------------------------------------------

X, Y, Θ = Case().data()
MISUSE: dict[str, dict[str, Any]] = {
    "x has another width": {"x": X[:, :5].copy()},
    "x is not contiguous": {"x": np.asfortranarray(X)},
    "x has strides": {"x": np.repeat(X, 2, 1)[:, ::2]},
    "x is float16": {"x": X.astype(np.float16)},
    "x is flat": {"x": X.ravel()},
    "x is empty": {"x": X[:0], "y": Y[:0]},
    "y is int32": {"y": Y.astype(np.int32)},
    "y is short": {"y": Y[:-1]},
    "y has strides": {"y": np.repeat(Y, 2)[::2]},
    "a label is too large": {"y": np.where(np.arange(50) == 7, 5, Y)},
    "a label is negative": {"y": np.where(np.arange(50) == 7, -1, Y)},
    "θ is short": {"θ": Θ[:-1]},
    "θ is of another precision": {"θ": Θ.astype(np.float32)},
    "there is no layer": {"widths": (6,)},
    "a layer has no width": {"widths": (6, 0, 5)},
    "the activation is unknown": {"activation": "softsign"},
    "weights are of other rows": {"weights": np.ones(3)},
    "targets are of another width": {"y": np.zeros((50, 2))},
    "a batch has no rows": {"batch_size": 0},
}


@pytest.mark.parametrize("changes", MISUSE.values(), ids=MISUSE)
def test_misuse_is_refused_at_the_door(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Case().engine(**changes)


def test_misuse_of_methods_is_refused() -> None:
    engine = Case().engine()
    order = np.arange(50)
    wrong: Any
    for wrong, done in (
        (order.astype(np.int32), 0), (order[::2], 0), (order + 1, 0), (order - 1, 0), (order[:0], 0),
        (order, 9), (order, -1), (order.reshape(5, 10), 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            engine.begin_epoch(wrong, done)
    for count, log_every in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="steps"):
            engine.advance(count, log_every)
    state = engine.state()
    for wrong_state, step in (
        ({}, 0), ({**state, "more": Θ}, 0), ({**state, "s": Θ[1:]}, 0), ({**state, "s": Θ.astype("f4")}, 0),
        (state, -1), (state, 301),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            engine.restore(wrong_state, step)
    for x, y in ((X[:, :5], Y), (X, Y + 5), (X.astype("f4"), Y)):
        with pytest.raises(ValueError, match=r"\w"):
            engine.rows(x, y)


def train_beside_forbidden_memory() -> None:
    """Train on arrays that end where memory does: one number further, and the process is killed."""
    page, maps = mmap.PAGESIZE, []

    def at_the_end(values: Numbers) -> Numbers:
        pages = -(-values.nbytes // page)
        maps.append(memory := mmap.mmap(-1, (pages + 1) * page))
        last = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * page
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(last), page, 0) == 0
        array = np.frombuffer(memory, values.dtype, values.size, pages * page - values.nbytes)
        array[:] = values.ravel()
        return array.reshape(values.shape)

    for dtype, width in itertools.product(("float32", "float64"), (1, 5, 16, 17)):
        case = Case(rule=RuleCase("sgd"), widths=(width, 4, 3), n=37, batch=10, dtype=dtype, l2=1e-3)
        x, y, _ = case.data()
        x, y = at_the_end(x), at_the_end(y)
        engine = case.engine(x=x, y=y)
        engine.begin_epoch(at_the_end(case.order(0)), 0)
        engine.advance(10, 1)
        engine.evaluate(engine.rows(x, y))


@pytest.mark.skipif(sys.platform == "win32", reason="protects memory with mprotect")
def test_nothing_is_read_behind_the_arrays() -> None:
    python("-c", "import test_compiled; test_compiled.train_beside_forbidden_memory()")


def test_steps_end_with_the_epoch_and_with_the_run() -> None:
    engine = Case(steps=5).engine()
    assert engine.advance(10, 1).losses.shape == (0, 2)  # before the first epoch
    engine.begin_epoch(np.arange(50), 0)
    assert len(engine.advance(10, 1).losses) == 4
    assert len(engine.advance(10, 1).losses) == 0
    engine.begin_epoch(np.arange(50), 0)
    last = engine.advance(10, 100)
    assert last.losses.shape == (1, 2)
    assert last.norms.shape == (1, 4)  # the run's last step is a log point
    assert engine.step == 5
