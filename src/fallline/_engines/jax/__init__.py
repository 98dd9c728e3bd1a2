"""Programs as JAX traces and compiles them: inside `jit`, `scan`, `vmap` and `grad`, and for arrays outside, with the
bits of the native engine."""

import jax

if not hasattr(jax, "enable_x64"):
    raise ImportError(f"fallline steps arrays of JAX 0.8 or newer: pip install -U jax. Got {jax.__version__}.")
