"""What `benchmark.py` measures, and the processes that it measures in."""
