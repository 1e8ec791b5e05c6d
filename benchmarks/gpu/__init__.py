"""The steps of `benchmarks/gpu_check.py`: each a function of a `Setting` that returns JSON."""
