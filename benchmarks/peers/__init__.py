"""Others' ways to run the same network."""
