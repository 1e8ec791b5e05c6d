"""Any PyTorch network as one of the kit: named on the command line, run to learn what it is."""
