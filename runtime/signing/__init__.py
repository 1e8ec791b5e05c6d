"""Artefacts that a key signed: signing a folder, and opening only what was signed."""
