"""Asynchronous training by workers that share parameter servers: its trainer, and what each other process does."""
