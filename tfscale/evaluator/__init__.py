"""The evaluator: a process of its own beside a training, which evaluates every checkpoint that it writes."""
