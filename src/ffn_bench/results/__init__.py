"""What training leaves, as objects of Python: a run, a sweep, a comparison."""
