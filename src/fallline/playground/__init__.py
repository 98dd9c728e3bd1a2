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
    """The playground as one HTML page, which asks no server for anything.

    optimizers: those that it offers, as `fallline.race.run` takes them: names, classes, Optimizers, rules, also
        "module:rule" and "file.py:rule", or a dict of these by name. None for every rule and dialect, of which it
        begins with the ten. They are chains of formulas with numbers for settings.

    Raises ValueError for what cannot be written as JavaScript: partitions, functions of whole leaves (Muon, Adafactor),
    `accumulate`, schedules; ValueError or TypeError for what is no optimizer.

    >>> import fallline as fl
    >>> sign = fl.rule(lambda g, *, lr=0.1: -lr * fl.sign(g))
    >>> "mine" in fl.playground.page({"mine": sign, "Adam": fl.Adam(0.1)})
    True
    """
    return html(optimizers)


def script(optimizers: Sequence[OptimizerSource] | Mapping[str, OptimizerSource] | None = None) -> str:
    """The optimizers alone as a JavaScript module, for Node and for pages of others.

    It exports `trajectory(name, settings, x0, gradients, {dtype, steps})`, the points from x0 on, one for each gradient
    of a list, or of a function of the point and of the steps done; `Optimizer`, whose `begin(x0)`, `step(g)` and
    `rest()` go step by step; `rules`, what there is, by name. Points are arrays of numbers of any length, of which the
    `dtype` is "float64" or "float32". Their bits are those of NumPy; where a schedule has powers that are no whole
    numbers, logarithms or exponentials, their last bit is the browser's.

    optimizers, and what it raises: as for `page`.

    >>> import fallline as fl
    >>> "export { Optimizer, trajectory, rules };" in fl.playground.script(["SGD"])
    True
    """
    return written({each.name: each.given() for each in chosen(optimizers)}) + EXPORTS
