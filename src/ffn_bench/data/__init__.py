"""Named data sets as split, standardised tensors."""
