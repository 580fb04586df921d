"""The lecture, executable: each topic states a claim and sets the computed number beside the lecture's."""
