"""How fast, how large: modes, peers and the paper's tables."""
