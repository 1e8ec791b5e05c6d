"""The kinds of inputs, and for each what reads it."""
