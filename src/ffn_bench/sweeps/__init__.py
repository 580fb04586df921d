"""Many runs: planned, trained, launched, tuned and ranked."""
