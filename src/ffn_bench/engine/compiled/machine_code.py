"""From LLVM's text to functions in memory, by llvmlite; what was compiled is kept in the cache."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import llvmlite
from llvmlite import binding as llvm

from ffn_bench.engine.compiled.cache import Cache, digest_of

KERNEL_SOURCES = ("instructions.py", "kernels.py", "machine_code.py", "plan.py", "registers.py")
"""The modules that the kernels' code depends on."""

KERNELS = ("train", "evaluate")
"""The functions of `kernels` that a run needs."""


class Processor(NamedTuple):
    """What code is compiled for: a processor's name and features, in LLVM's words."""

    name: str
    features: str


def processor() -> Processor:
    """This machine's processor, or the one that numba's environment variables name."""
    name = os.environ.get("NUMBA_CPU_NAME", "")
    features = os.environ.get("NUMBA_CPU_FEATURES", "")
    return Processor(name, features) if name else _host()


@functools.cache
def _host() -> Processor:
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell; the name implies the usual ones
        features = ""
    return Processor(llvm.get_host_cpu_name(), features)


def _new_target(cpu: Processor) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu.name, features=cpu.features, opt=3, codemodel="jitdefault", jit=True
    )


def compiled(text: str, cpu: Processor) -> bytes:
    """The object file of a module, optimised for the processor."""
    module, target = llvm.parse_assembly(text), _new_target(cpu)
    module.triple, module.data_layout = llvm.get_process_triple(), str(target.target_data)
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return _emitted(module, target)


def compiled_kernel(kernel: str, dtype: str, cpu: Processor) -> bytes:
    """The object file of one of `kernels`, translated and optimised by numba, under the name `kernel`.

    numba adds code that reports Python exceptions. The kernels raise none: once LLVM sees the functions as
    private to the module, it finds that out and removes that code, and what is left needs neither numba nor
    Python to run.
    """
    from numba import cfunc  # imports for a third of a second: where code is in the cache, it is not needed

    from ffn_bench.engine.compiled import kernels

    function = cfunc(kernels.signature(kernel, dtype), error_model="numpy")(getattr(kernels, kernel))
    module, target = llvm.parse_assembly(function.inspect_llvm()), _new_target(cpu)
    for defined in (*module.functions, *module.global_variables):
        if defined.name == function.native_name:
            defined.name = kernel
        elif not defined.is_declaration:
            defined.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_ipsccp_pass()  # what a private function always returns is a constant for its callers
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    return _emitted(module, target)


def _emitted(module: llvm.ModuleRef, target: llvm.TargetMachine) -> bytes:
    module.verify()
    needed = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if needed:  # LLVM ends the process where it cannot find a function
        raise RuntimeError(f"compiled code would call {', '.join(sorted(needed))}")
    return bytes(target.emit_object(module))


class Function:
    """A compiled function in memory."""

    def __init__(self, object_file: bytes, name: str, cpu: Processor) -> None:
        # The engine owns its target machine: each needs one of its own.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_target(cpu))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        self._engine.finalize_object()
        self.address: int = self._engine.get_function_address(name)


_LOADED: dict[str, Function] = {}
"""What this process has loaded, by the cache's keys. It stays: somebody may hold the address."""


def _function(name: str, key: str, cache: Cache, compile_: Callable[[Processor], bytes]) -> int:
    cpu = processor()
    key = _full(key, cpu)
    if key not in _LOADED:
        _LOADED[key] = Function(cache.get(key, lambda: compile_(cpu)), name, cpu)
    return _LOADED[key].address


@functools.lru_cache(256)
def _full(key: str, cpu: Processor) -> str:
    """The cache's key: with the processor, LLVM's version, and this module, which says what LLVM does."""
    return digest_of(key, *cpu, llvmlite.__version__, _sources(("machine_code.py",)))


def function(name: str, text: str, cache: Cache) -> int:
    """The address of a module's function, compiled now or found in the cache.

    The key of the cache is the module's text itself: an edited rule is never served as it was.
    """
    return _function(name, text, cache, lambda cpu: compiled(text, cpu))


def kernel(name: str, dtype: str, cache: Cache) -> int:
    """The address of one of `kernels`, compiled now or found in the cache, whose key is their sources and
    numba's version."""
    key = _key_of_kernel(name, dtype)
    return _function(name, key, cache, lambda cpu: compiled_kernel(name, dtype, cpu))


def has_kernels(dtype: str, cache: Cache) -> bool:
    """Whether the cache holds all of `kernels`: numba is not imported then."""
    return all(cache.has(_full(_key_of_kernel(name, dtype), processor())) for name in KERNELS)


@functools.cache
def _key_of_kernel(name: str, dtype: str) -> str:
    return digest_of(name, dtype, version("numba"), _sources(KERNEL_SOURCES))


@functools.cache
def _sources(names: tuple[str, ...]) -> str:
    """A digest of some modules of this package."""
    folder = Path(__file__).parent
    return digest_of(*((folder / name).read_bytes() for name in names))
