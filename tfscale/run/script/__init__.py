"""`tfscale run script.py`: any Keras script, not a line changed."""
