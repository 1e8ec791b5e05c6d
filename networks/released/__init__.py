"""The weights that ICNet's authors released: their file formats, and the way to a checkpoint."""
