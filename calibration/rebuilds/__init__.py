"""`icnet quantize --rebuilds K`: what changes when the calibration images are drawn anew."""
