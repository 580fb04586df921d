"""What the commands share: how they start, what a person sees, how mistakes end."""
