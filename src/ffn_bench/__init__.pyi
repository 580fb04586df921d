"""What `import ffn_bench` offers, for type checkers and editors."""

from ffn_bench.api import Run as Run
from ffn_bench.api import Sweep as Sweep
from ffn_bench.api import fit as fit
from ffn_bench.api import load as load
from ffn_bench.api import sweep as sweep
from ffn_bench.estimator import FFNClassifier as FFNClassifier
from ffn_bench.estimator import FFNRegressor as FFNRegressor

__version__: str
