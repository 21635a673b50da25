"""From files to a served model: the steps of it, and what runs them on one machine."""
