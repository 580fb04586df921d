"""`ffn-predict`: classes and probabilities of rows, by a trained network."""
