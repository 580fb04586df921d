"""Update rules for plug-ins: what a rule of your own is made of, see `optimizers.rule_forms`."""

from ffn_bench.optimizers.elementwise import absolute, maximum, sign, sqrt, toward, where
from ffn_bench.optimizers.rule_forms import AnyRule as Rule
from ffn_bench.optimizers.rule_forms import Hyper, State, zeros
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer
from ffn_bench.optimizers.rules import RULES

__all__ = [
    "RULES",
    "Hyper",
    "Rule",
    "RuleOptimizer",
    "State",
    "absolute",
    "maximum",
    "sign",
    "sqrt",
    "toward",
    "where",
    "zeros",
]
