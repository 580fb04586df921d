"""Update rules for plug-ins: what a rule of your own is made of, see `optimizers.rules`."""

from ffn_bench.optimizers.rules import RULES, Hyper, Rule, RuleOptimizer, State, zeros

__all__ = ["RULES", "Hyper", "Rule", "RuleOptimizer", "State", "zeros"]
