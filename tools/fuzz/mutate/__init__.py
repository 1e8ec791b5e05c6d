"""How inputs are changed: by bytes, and by the structure of what they hold."""
