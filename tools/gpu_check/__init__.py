"""All that there is to measure on an NVIDIA GPU, by our own commands; see docs/measuring.md."""
