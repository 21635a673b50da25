"""Keras layers, operations and updates that are faster than the stock ones and equal to them."""
