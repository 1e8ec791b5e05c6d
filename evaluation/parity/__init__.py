"""`icnet parity`: how far artefacts are from the network."""
