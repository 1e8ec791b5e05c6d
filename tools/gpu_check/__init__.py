"""All that there is to measure on an NVIDIA GPU, by the product's own commands; see docs/gpu.md."""
