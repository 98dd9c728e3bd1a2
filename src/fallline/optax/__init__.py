"""fallline's optimizers as transformations of optax, to run inside `jit`: `fallline.optax.transform(fl.Adam(1e-3))`."""

from __future__ import annotations

from typing import Any

try:
    import optax
except ImportError as error:
    raise ImportError(f"fallline.optax is for training loops of JAX: pip install optax. ({error})") from None

from fallline._functional.functional import Functional
from fallline._functional.share import State

__all__ = ["State", "transform"]


def transform(opt: Any, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """x"""
    functional = Functional(opt, settings)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return functional.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(functional.init, update)
