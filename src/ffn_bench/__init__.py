"""Train, race and dissect feed-forward networks."""

__version__ = "0.1.0"
