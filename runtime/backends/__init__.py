"""The runtimes: one backend each."""
