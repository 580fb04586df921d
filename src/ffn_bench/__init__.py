"""Train, race and dissect feed-forward networks.

`fit`, `sweep` and `load` are the commands as functions, `Run` and `Sweep` what they return, `FFNClassifier`
and `FFNRegressor` networks as scikit-learn's estimators: docs/python.md. `__init__.pyi` says so to type
checkers and editors; here they would be imports, and every command would wait for them.
"""

import os
import sys
import warnings
from typing import Any

from ffn_bench import process

process.begin()

__version__ = "0.1.0"
__all__ = ["FFNClassifier", "FFNRegressor", "Run", "Sweep", "__version__", "fit", "load", "sweep"]

# PyTorch's threads spin while they wait for each other; on busy cores each waits for a slice of time of the
# other at every operation (`device.threads_for`). The OpenMP library reads this when PyTorch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Files of conf/hydra/launcher are complete, whether or not Hydra checks them by their plugins' schemas, of
# which it warns; here, because the workers of launchers compose, too.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/.*' is validated against ConfigStore schema")


def __getattr__(name: str) -> Any:
    """What is offered, imported when it is asked for: a command needs none of it."""
    import importlib

    if name in ("FFNClassifier", "FFNRegressor"):
        return getattr(importlib.import_module("ffn_bench.estimator"), name)
    if name in __all__:
        return getattr(importlib.import_module("ffn_bench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
