"""Update rules, learning-rate schedules, and the table of optimizers."""
