"""A finished run opened again: its task and weights, its predictions, and the start of another run from them."""
