"""`icnet verify`: the gate before a release."""
