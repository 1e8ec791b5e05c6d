"""The plots of benchmarks."""
