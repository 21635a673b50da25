"""`tfscale data inspect`: a prepared data set on one page that opens without a network."""
