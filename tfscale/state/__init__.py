"""What a checkpoint holds: the state of a training, and what a Keras model keeps besides its weights."""

from tfscale.state.train_state import TrainState

__all__ = ["TrainState"]
