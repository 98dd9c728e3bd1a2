"""Modifiers of the gradient, which stand before a rule, and of the increment, which stand after it."""

from __future__ import annotations

from math import inf
from typing import Any

from fallline._formula.rule import Bound, Count, Fraction, NonNegative, Positive, after, before, scalar
from fallline._formula.words import arrive, maximum, minimum, settle, shortened, where

# ---- modifiers of the gradient ---------------------------------------------------------------------------------------

def gathered(g: Any, sum: Any, calls: Any, total: Any, *, weight: Any) -> Any:
    """The state of `accumulate` after a call in which its chain does not step."""
    return sum + weight*g, calls + 1, total + weight


@before(hold=gathered)
def accumulate(g, sum=0, calls=scalar(0), total=scalar(0), *, n: Count, weight: Positive = 1):
    """Step the chain at every n-th call, with the weighted mean of the n gradients: `fallline.accumulate`."""
    return (sum + weight*g)/(total + weight), 0, 0, 0


@before
def maximize(g):
    """Climb instead of descending: reverse the sign of the gradient.

    >>> import fallline as fl
    >>> fl.chain(fl.maximize, fl.SGD(0.5)).step(1.0, 2.0)
    2.0
    """
    return -g


@before
def l2(g, x, *, rate: NonNegative = 1e-2):
    """Add the gradient of rate/2·|x|² to g. Adaptive rules rescale it; they leave weight_decay alone.

    >>> import fallline as fl
    >>> fl.chain(fl.l2(0.5), fl.SGD(0.5)).step(1.0, 2.0)
    -0.25
    """
    return g + rate*x


@before
def clip_value(g, *, limit: NonNegative = 1.0):
    """Keep every coordinate of the gradient within [-limit, limit].

    >>> import fallline as fl
    >>> fl.chain(fl.clip_value(1.0), fl.SGD(0.5)).step([1.0, 1.0], [2.0, -0.5])
    [0.5, 1.25]
    """
    return minimum(maximum(g, -limit), limit)


@before
def clip_norm(g, *, max_norm: Positive = 1.0):
    """Clip the norm over all leaves together to max_norm: g times max_norm/max(|g|, max_norm).

    The norm is summed in double precision, where no square overflows or underflows. Any finite gradient is clipped to
    full precision.

    Source: Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks, algorithm 1.

    >>> import fallline as fl
    >>> fl.chain(fl.clip_norm(2.5), fl.SGD(1.0)).step([0.0, 0.0], [3.0, -4.0])
    [-1.5, 2.0]
    """
    return shortened(g, max_norm)


# ---- modifiers of the increment --------------------------------------------------------------------------------------


@after
def weight_decay(d, x, *, lr, rate: NonNegative = 1e-2):
    """Add decoupled weight decay: the parameter shrinks by lr·rate of itself, with the chain's lr.

    Source: Loshchilov & Hutter 2019, Decoupled weight decay regularization, arXiv 1711.05101.

    >>> import fallline as fl
    >>> fl.chain(fl.SGD(0.5), fl.weight_decay(0.25)).step(1.0, 2.0)
    -0.125
    """
    return d - lr*rate*x


decayed = weight_decay.formula  # by a name that rules with a rate called weight_decay can reach


@after
def bounds(d, x, *, low: Bound = -inf, high: Bound = inf):
    """Keep every coordinate of the parameter within [low, high], exactly: `fallline.bounds`.

    It projects the parameter after the step, so there is no increment: `Optimizer.update` refuses it.
    """
    return arrive(minimum(maximum(x + settle(d), low), high), x)


@after
def average(d, x, a="x", *, decay: Fraction = 0.999):
    """Keep an exponential average of the parameters after each step, in `Optimizer.averaged`.

    a ← decay·a + (1-decay)·(x + d), starting at the parameters before the first step. Put it last in a chain. It is
    computed as a correction of whichever of the two weighs more: decay and 1-decay, each rounded, need not sum to 1, so
    the average would drift away from a parameter that stands still. With `schedules.mean_since(n)` as decay, it is the
    plain mean of the points after step n.

    Source: Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging, with exponential weights.

    >>> import fallline as fl
    >>> opt = fl.chain(fl.SGD(0.5), fl.average(0.75))
    >>> opt.step(1.0, 2.0), float(opt.averaged)
    (0.0, 0.75)
    """
    far = x + d - a
    return d, where(decay < 0.5, x + d - decay*far, a + (1 - decay)*far)
