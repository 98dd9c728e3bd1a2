"""Optimizers for PyTorch training loops: `from fallline.torch import AdamW` replaces that of torch.optim.

`Adam`, `AdamW`, `SGD` and the others have torch's arguments, keys, state and formula, as in `fallline.dialects.torch`.
`Optimizer(params, opt)` takes any optimizer, chain or rule of fallline.

>>> import torch, fallline.torch
>>> w = torch.nn.Parameter(torch.ones(2))
>>> opt = fallline.torch.AdamW([w], lr=0.1)
>>> (w * w).sum().backward(); opt.step(); w.detach()
tensor([0.8990, 0.8990])
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"fallline.torch is for training loops of PyTorch: pip install torch. ({error}) On NumPy arrays "
                      "torch's formulas are fallline.dialects.torch.") from None

from fallline._engines.options import Options
from fallline.dialects import torch as dialects
from fallline.torch.groups import OfDialect
from fallline.torch.optimizer import Optimizer

__all__ = ["Optimizer", *dialects.__all__]


def _sibling(name: str) -> type[Optimizer]:
    cls = getattr(dialects, name)
    signature = inspect.signature(cls)
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def begin(self: Any, params: Any, *args: Any, **named: Any) -> None:
        options = {key: named.pop(key) for key in Options._fields if key in named}
        try:
            bound = cls.arguments.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"fallline.torch.{name}{made.__signature__}: {error}.") from None
        bound.apply_defaults()
        self._begin(OfDialect(cls, dict(bound.arguments), options), params)

    made: Any = type(name, (Optimizer,), {
        "__init__": begin, "__module__": __name__, "__signature__": signature.replace(
            parameters=[first, *signature.parameters.values()]),
        "__doc__": f"torch.optim.{name} with one native call for all groups. {cls.summary}\n\n"
                   "Arguments, defaults, keys of groups and of state are torch's. For "
                   f"{', '.join(Options._fields)} see `fallline.Optimizer`."})  # fmt: skip
    return made


globals().update({name: _sibling(name) for name in dialects.__all__})


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        import fallline

        if name in fallline.OPTIMIZERS:
            raise AttributeError(f"torch has no {name}: write fallline.torch.Optimizer(params, fallline.{name}(...)).",
                                 name=name)
        raise AttributeError(f"module 'fallline.torch' has no attribute {name!r}. Known: {', '.join(__all__)}.",
                             name=name)
