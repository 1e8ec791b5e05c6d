"""`icnet evaluate`: scores of a model on a data set."""
