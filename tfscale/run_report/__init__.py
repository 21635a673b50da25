"""`tfscale report`: one run, or several beside each other, on one page that opens without a network. No TensorFlow.

Whatever lies in a run's folder may be somebody else's, torn, or made to hurt: it is read as run_folders/ reads it.
"""
