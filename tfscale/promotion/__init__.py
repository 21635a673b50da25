"""Promotion: a run becomes the registered model that an alias names, if it is better by more than noise."""
