"""Scripts that run a peer each, in a process of its own."""
