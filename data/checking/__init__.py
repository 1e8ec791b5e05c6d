"""Is a data set whole: what is in it, what is wrong with it, and which files to look at."""
