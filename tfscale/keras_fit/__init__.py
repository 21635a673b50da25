"""Keras's fit: its arguments, its epochs, its callbacks and its History, in a run of ours."""
