"""The check that many replicas train as one does."""
