"""Optimizers as pure functions, for programs that JAX traces."""
