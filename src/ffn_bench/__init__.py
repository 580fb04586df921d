"""Train, race and dissect feed-forward networks."""

import os
import sys
import warnings

from ffn_bench import process

process.begin()

__version__ = "0.1.0"

# PyTorch's threads spin while they wait for each other; on busy cores each waits for a slice of time of the
# other at every operation (`device.threads_for`). The OpenMP library reads this when PyTorch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Files of conf/hydra/launcher are complete, whether or not Hydra checks them by their plugins' schemas, of
# which it warns; here, because the workers of launchers compose, too.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/.*' is validated against ConfigStore schema")
