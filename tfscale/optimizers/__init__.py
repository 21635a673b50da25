"""Optimizers and learning-rate schedules of a configuration, as Keras objects."""
