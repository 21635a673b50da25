"""A trained model as files that work without tfscale, counted only once another process has proved it."""

from tfscale.export.verified import export_model

__all__ = ["export_model"]
