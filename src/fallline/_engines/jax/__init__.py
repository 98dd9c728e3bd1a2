"""Programs as JAX traces them: inside `jit`, `scan`, `vmap` and `grad`, with the bits of the native engine."""
