"""What the bytes of a picture say before they are decoded, and whether they are whole."""
