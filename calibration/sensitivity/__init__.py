"""What quantizing each block costs."""
