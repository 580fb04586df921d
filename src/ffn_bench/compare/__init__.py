"""`ffn-compare`: from the run folders of sweeps to statistics, figures and one report."""
