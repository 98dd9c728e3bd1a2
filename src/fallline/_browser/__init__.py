"""Optimizers and surfaces for browsers: what the playground and the race's report are made of."""
