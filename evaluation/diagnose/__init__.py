"""Whether a network is given images, and read, as it was trained: the usual slips, tried."""
