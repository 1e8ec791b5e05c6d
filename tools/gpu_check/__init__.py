"""The steps of `tools/gpu_check/command.py`: each a function of a `Setting` that returns JSON."""
