"""The fastest verified artefact of a folder."""
