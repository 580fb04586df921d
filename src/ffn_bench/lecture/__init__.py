"""The lecture, executable: each topic states a claim, computes it, and sets the number beside the lecture's."""
