"""One run, top to bottom: the folder to read first."""

from tfscale.run.api import fit

__all__ = ["fit"]
