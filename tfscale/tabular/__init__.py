"""task=tabular: tables of numbers, categories, dates and texts, as `tfscale data import` describes them."""
