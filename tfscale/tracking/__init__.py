"""Where a run's parameters, metrics and artifacts go besides its own folder."""
