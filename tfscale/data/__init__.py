"""From bytes on disk to batches: sources (what there is), the order of examples (one rule) and the pipeline."""
