"""`ffn-export`: a trained network as a file that other programs load."""
