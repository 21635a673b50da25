"""The engine: the compiled step, the loop around it, and what happens between loops."""
