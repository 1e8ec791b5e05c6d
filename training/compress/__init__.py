"""`icnet compress`: prunes a network and fine-tunes it."""
