"""Optimizers with the names, keywords, defaults and formulas of other libraries.

`fallline.Adam` is the article's; `fallline.dialects.torch.Adam` is torch's, on arrays of any library. The dialects are
`torch`, `keras`, `optax` and `tensorflow`. These libraries need not be installed, and are not imported. Write the names
in full: `from fallline.dialects import torch` would hide the real torch.

>>> import fallline as fl
>>> fl.dialects.torch.Adam(lr=0.1, betas=(0.9, 0.99))
dialects.torch.Adam(lr=0.1, betas=(0.9, 0.99), eps=1e-08)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fallline.dialects import keras as keras
    from fallline.dialects import optax as optax
    from fallline.dialects import tensorflow as tensorflow
    from fallline.dialects import torch as torch
    from fallline.dialects.dialect import Dialect

LIBRARIES = ("torch", "keras", "optax", "tensorflow")
__all__ = ["LIBRARIES", *LIBRARIES]


def __getattr__(name: str) -> Any:
    if name in LIBRARIES:
        return importlib.import_module(f"fallline.dialects.{name}")
    raise AttributeError(f"module 'fallline.dialects' has no attribute {name!r}. Known: {', '.join(LIBRARIES)}.",
                         name=name)


def __dir__() -> list[str]:
    return __all__


def every() -> dict[str, type[Dialect]]:
    """Return all dialect classes by the names they print."""
    modules = [__getattr__(library) for library in LIBRARIES]
    return {cls.title: cls for module in modules for cls in map(vars(module).get, module.__all__)}
