"""From overrides on a command line, or from a saved configuration, to a typed RunConfig: all that knows Hydra."""

from tfscale.composition.hydra_compose import compose

__all__ = ["compose"]
