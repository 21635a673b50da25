"""From overrides on a command line, or from a saved configuration, to a typed RunConfig.

Owns all that knows Hydra: whoever takes the result does not.

    config = compose(["+recipe=resnet", "train.until=5ep"])
    config.train.until, config.optimizer.name
"""

from tfscale.composition.hydra_compose import compose

__all__ = ["compose"]
