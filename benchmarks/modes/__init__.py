"""One module a mode of `icnet benchmark`."""
