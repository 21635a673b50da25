"""Checkpoints: atomic, verified, in TensorFlow's own bundle format, written while training goes on.

Owns the folder checkpoints/ of a run: its layout (entries.py), the tensors in it (bundle.py), the thread that writes
(writer.py), and when what is saved and restored (checkpointer.py).

    checkpointer = Checkpointer(run_dir.checkpoints, keep=2)
    step = checkpointer.restore(state)         # None: there are none
    checkpointer.save(state)                   # returns once the state is copied
    checkpointer.save(state, required=True)    # returns once it is durable
    checkpointer.finish()                      # waits for what is being written
"""

from tfscale.checkpoint.checkpointer import Checkpointer, SaveHooks
from tfscale.checkpoint.entries import Entry

__all__ = ["Checkpointer", "Entry", "SaveHooks"]
