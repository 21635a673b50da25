"""Workloads that someone can run and reproduce: one task each, reached by `_target_`, never imported by tfscale."""
