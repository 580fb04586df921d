"""Train, race and dissect feed-forward networks."""

import warnings

from ffn_bench import process

process.begin()

__version__ = "0.1.0"

# Files of conf/hydra/launcher are complete, whether or not Hydra checks them by their plugins' schemas, of
# which it warns; here, because the workers of launchers compose, too.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/.*' is validated against ConfigStore schema")
