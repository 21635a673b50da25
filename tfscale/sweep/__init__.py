"""Sweeps: many trainings that differ in some overrides, chosen by Optuna, each in a process of its own."""
