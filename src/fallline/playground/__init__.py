"""The playground: every optimizer live in a browser, in one file, with NumPy's numbers to the bit.

>>> import fallline as fl
>>> len(fl.playground.page()) < 400_000
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fallline._browser.module import EXPORTS
from fallline._browser.module import script as written
from fallline.playground.page import chosen, html
from fallline.race.contenders.named import OptimizerSource
from fallline.race.problems.surfaces import SURFACES

__all__ = ["SURFACES", "page", "script"]


def page(optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None) -> str:
    """Return the playground as one HTML page that requests nothing from any server.

    optimizers: the optimizers on offer, as for `fallline.race.run`: names, classes, Optimizers, rules, also
        "module:rule" and "file.py:rule", or a dict of these by name. None: every rule and dialect, beginning with
        the ten. They must be chains of formulas with numbers as hyper-parameters.

    Raises ValueError for optimizers that cannot be written as JavaScript: partitions, whole-leaf rules (Muon,
    Adafactor), `accumulate`, schedules; ValueError or TypeError for anything that is no optimizer.

    >>> import fallline as fl
    >>> sign = fl.rule(lambda g, *, lr=0.1: -lr * fl.sign(g))
    >>> "mine" in fl.playground.page({"mine": sign, "Adam": fl.Adam(0.1)})
    True
    """
    return html(optimizers)


def script(optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None) -> str:
    """Return only the optimizers, as a JavaScript module for Node and for other pages.

    It exports three things. `trajectory(name, settings, x0, gradients, {dtype, steps})` returns the points from x0 on;
    `gradients` is a list, or a function of the point and the number of steps done. `Optimizer` goes step by step, with
    `begin(x0)`, `step(g)` and `rest()`. `rules` has the rules by name. Points are arrays of numbers of any length;
    `dtype` is "float64" or "float32". Their bits are those of NumPy, except that non-integer powers, logarithms and
    exponentials in a schedule may differ in the last bit between browsers.

    `optimizers` and the errors raised are as for `page`.

    >>> import fallline as fl
    >>> "export { Optimizer, trajectory, rules };" in fl.playground.script(["SGD"])
    True
    """
    return written({each.name: each.given() for each in chosen(optimizers)}) + EXPORTS
