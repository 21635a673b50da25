"""`tfscale data validate`: what is wrong with data, by themselves or beside others."""
