"""fallline: first-order optimisers for people who have a gradient.

>>> import numpy as np, fallline as fl
>>> w = np.array([1.0, -2.0])
>>> opt = fl.Adam(lr=0.1)
>>> for _ in range(200):
...     w = opt.step(w, 2 * w)            # the gradient of |w|²
>>> bool(abs(w).max() < 1e-2)
True
"""

from typing import TYPE_CHECKING, Any

from fallline import ops, rules
from fallline._engines.threads import set_num_threads
from fallline._formula.rule import Fraction, NonNegative, Positive, after, before, rule, scalar, shaped
from fallline._formula.settings import by_path
from fallline._formula.words import abs as abs
from fallline._formula.words import exp, log, maximum, minimum, norm, root, sign, sqrt, total, where
from fallline._loops.descend import descend
from fallline._loops.minimize import minimize
from fallline._messages.suggestions import meant_name
from fallline._optimizer.compose import accumulate, bounds, chain, mask, partition
from fallline._optimizer.load import load
from fallline._optimizer.named import *  # noqa: F403
from fallline._optimizer.named import OPTIMIZERS
from fallline._optimizer.optimizer import Optimizer
from fallline.errors import (
    BusyOptimizer,
    CheckpointError,
    FalllineError,
    FormulaError,
    NonFiniteGradient,
    TornOptimizer,
)
from fallline.rules import average, clip_norm, clip_value, l2, maximize, weight_decay

__all__ = [
    "OPTIMIZERS", "BusyOptimizer", "CheckpointError", "FalllineError", "FormulaError", "Fraction",
    "NonFiniteGradient", "NonNegative", "Optimizer", "Positive", "TornOptimizer", "accumulate", "after", "average",
    "before", "bounds", "by_path", "chain", "clip_norm", "clip_value", "descend", "dialects", "exp", "l2", "load",
    "log", "mask", "maximize", "maximum", "minimize", "minimum", "norm", "ops", "partition", "playground", "race",
    "root", "rule", "rules", "scalar", "schedules", "set_num_threads", "shaped", "sign", "sqrt", "total",
    "weight_decay", "where",
    *OPTIMIZERS,
]  # fmt: skip  (but abs: a star would replace that of Python)
__version__ = "0.1.0"
_ON_FIRST_USE = ("dialects", "playground", "race", "schedules")  # which take a while

if TYPE_CHECKING:
    from fallline import dialects as dialects
    from fallline import mpi as mpi
    from fallline import optax as optax
    from fallline import playground as playground
    from fallline import race as race
    from fallline import schedules as schedules


def __getattr__(name: str) -> Any:
    # these by name alone: a star must not hide the library called so, nor ask for what is not installed
    if name in (*_ON_FIRST_USE, "keras", "torch", "optax", "mpi"):
        import importlib

        return importlib.import_module(f"fallline.{name}")
    methods = [f"Optimizer.{method}" for method in vars(Optimizer) if not method.startswith("_")]
    hint = "" if name.startswith("_") else meant_name(name, __all__, _dialects(), methods)
    # With its name, but not the module, as Python would add a suggestion of its own.
    raise AttributeError(f"module 'fallline' has no attribute {name!r}.{hint}", name=name)


def _dialects() -> list[str]:
    from fallline.dialects import every  # for an error alone

    return list(every())


def __dir__() -> list[str]:
    special = (name for name in globals() if name.startswith("__"))
    return sorted({*special, "abs", *__all__})  # and not how it is made
