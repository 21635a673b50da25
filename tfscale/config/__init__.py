"""What a run is configured by: the typed schema, durations, settings files, and which keys take effect.

Owns the names, the types and the defaults. Refuses to know Hydra (composition/) and TensorFlow.
"""

from tfscale.config.duration import Duration
from tfscale.config.schema import RunConfig, identity, validate

__all__ = ["Duration", "RunConfig", "identity", "validate"]
