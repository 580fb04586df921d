"""The lecture, executable: each topic states a claim and compares the computed numbers with the lecture's."""
