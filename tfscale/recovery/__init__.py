"""How a run goes on: one state on all workers, a roll-back where the loss diverged, errors of the data by name."""
