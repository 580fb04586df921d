"""The network, its derivatives and its parameters."""
