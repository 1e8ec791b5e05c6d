"""Tries inputs of every kind that the product reads: each gives a result or an error of ours."""
