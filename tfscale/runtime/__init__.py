"""TensorFlow's global state and the strategies."""

from tfscale.runtime.global_state import applied, build_strategy

__all__ = ["applied", "build_strategy"]
