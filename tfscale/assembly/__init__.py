"""Task, state and trainer put together in one place, for training, parity and a run that is opened again."""
