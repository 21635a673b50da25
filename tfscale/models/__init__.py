"""Architectures: pure functions from hyper-parameters to Keras models, and their cost without TensorFlow."""
