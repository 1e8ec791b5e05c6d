"""Data sets of one's own: a folder of images and labels, or code that opens one."""
