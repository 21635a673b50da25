"""What is wrong with a machine before a run is tried on it: one finding for each thing that was looked at."""
