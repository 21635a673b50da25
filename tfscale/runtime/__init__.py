"""TensorFlow's global state and the strategy, all that is private in TensorFlow and Keras that we touch."""

from tfscale.runtime.global_state import applied, build_strategy

__all__ = ["applied", "build_strategy"]
