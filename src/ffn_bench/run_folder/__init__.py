"""What a run leaves: folders, locks, files, checkpoints, and reading them back."""
