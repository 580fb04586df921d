"""What a run is: every key, how it is read, what it may be, and its fingerprint."""
