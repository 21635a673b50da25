"""What tests share: tiny models and tables, real servers and processes, and the rows of the matrix of faults."""
