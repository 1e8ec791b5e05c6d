"""Rungs of an accuracy ladder: learned rounding, smoothing, and blocks in float where they must."""
