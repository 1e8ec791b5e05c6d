"""Quantizers of others, each at its best, and ours on the same networks and images."""
