"""`ffn-landscape`: the loss around trained networks, the way training took, the curvature at its end."""
