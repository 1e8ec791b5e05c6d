"""The networks, their checkpoints and their training. Needs torch."""
