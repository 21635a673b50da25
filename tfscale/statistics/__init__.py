"""What data look like, in numbers: profiles, where two differ, and the protos that keep them."""
