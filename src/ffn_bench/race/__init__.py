"""The race of the optimizers: one start, one surface, every path (L15)."""
