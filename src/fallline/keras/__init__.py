"""An optimizer for Keras models: `model.compile(fallline.keras.Optimizer(opt), ...)` takes any optimizer or chain.

It runs on Keras's torch and JAX back ends. Keras's own formulas are in `fallline.dialects.keras`.

>>> import keras, fallline as fl, fallline.keras
>>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
>>> model.compile(fallline.keras.Optimizer(fl.dialects.keras.Adam(1e-2)), loss="mse")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import keras
except ImportError as error:
    raise ImportError("fallline.keras is for models of Keras: pip install keras, and set KERAS_BACKEND to torch or jax "
                      f"before keras is imported. ({error}) On NumPy arrays Keras's formulas are "
                      "fallline.dialects.keras.") from None

if keras.backend.backend() not in ("torch", "jax"):
    raise ImportError("fallline.keras runs on Keras's torch and JAX back ends: set KERAS_BACKEND to torch or jax "
                      f"before keras is imported. Got {keras.backend.backend()!r}.")

from fallline.keras.optimizer import Optimizer

__all__ = ["Optimizer"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        import fallline
        from fallline.dialects import keras as dialects

        for module, known in (("fallline.dialects.keras", dialects.__all__), ("fallline", fallline.OPTIMIZERS)):
            if name in known:
                raise AttributeError(f"fallline.keras has one class, for all: write fallline.keras.Optimizer({module}."
                                     f"{name}(...)).", name=name)
        raise AttributeError(f"module 'fallline.keras' has no attribute {name!r}. Known: {', '.join(__all__)}.",
                             name=name)
