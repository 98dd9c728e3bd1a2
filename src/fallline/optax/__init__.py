"""Fallline's optimizers as transformations of optax, which run inside `jit`: `fallline.optax.transform(opt)`.

>>> import fallline as fl, jax, optax
>>> tx = fl.optax.transform(fl.Adam(0.1))
>>> w = jax.numpy.array([1.0, -2.0])
>>> state = tx.init(w)
>>> @jax.jit
... def step(w, state):
...     updates, state = tx.update(2 * w, state)      # the gradient of |w|²
...     return optax.apply_updates(w, updates), state
>>> for _ in range(200):
...     w, state = step(w, state)
>>> bool(abs(w).max() < 1e-2), int(state.count)
(True, 200)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import jax
    import optax
except ImportError as error:
    raise ImportError(f"fallline.optax is for training loops of JAX: pip install optax. ({error})") from None
if not hasattr(jax, "enable_x64"):
    raise ImportError(f"fallline.optax needs JAX 0.8 or newer: pip install -U jax. Got {jax.__version__}.")

from fallline._functional.functional import Functional
from fallline._functional.share import State
from fallline._messages.elsewhere import plain
from fallline._messages.suggestions import meant_within

__all__ = ["State", "rest", "transform"]


def transform(opt: Any, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """Make an optimizer a transformation of optax: two pure functions, for `jit`, `scan`, `vmap` and `grad`.

    `init(params)` returns the state, a `State`, or for a partition a dict of them by part. `update(grads, state,
    params=None)` returns the increments, for `optax.apply_updates`, and the new state. `params` is a tree of float16,
    bfloat16, float32, float64 or complex arrays, or of numbers; None is no leaf. `grads` is a tree like it, with a
    gradient for each leaf. Increments have the shapes and dtypes of the parameters, or of the gradients where no
    parameters are given. Other keywords of `update`, such as `value=`, are ignored.

    Parameters
    ----------
    opt: an optimizer, chain, partition or mask, also of your own rules or of `fallline.dialects`. It does not change,
        and its state is not used.
    **settings: hyper-parameters that replace those of opt, by the names in `opt.hyper`: numbers, trees or schedules, as
        opt takes them, and what JAX traces: `optax.inject_hyperparams(lambda lr: transform(opt, lr=lr))`. Of traced
        values the range is not checked.

    Formulas are computed as by `opt.step`: float16 and bfloat16 in float32, functions of settings and t in float64,
    whatever `jax_enable_x64` is. On a CPU, increments and state have the bits of `opt.step`, except where a rule sums
    over a leaf or the tree, or takes logarithms or powers that are not whole, and in numbers below the smallest normal
    one, which XLA reads as 0. Increments of 16 bits are rounded once more by `optax.apply_updates`.

    A schedule is called with the number of completed steps, which JAX traces: take one of `fallline.schedules`, or
    write it with `jax.numpy`. Rules of whole leaves (Muon, Adafactor) run in NumPy, by `jax.pure_callback`, and have no
    derivative. NaN and infinity in gradients are not noticed inside `jit`, unless opt has `nonfinite="skip"`; then they
    change nothing.

    Raises
    ------
    TypeError: opt is no optimizer of fallline, or has bounds, which increments cannot keep exactly; a schedule hears
        values, or needs the number of steps as a Python number; a leaf is no array of these dtypes.
    TypeError, ValueError: a setting is unknown or out of its range; a gradient is missing or of another shape; a state
        is that of another optimizer, or of other parameters; the rule needs the parameters, and `update` got none.

    Source: the interface is optax's, https://optax.readthedocs.io/en/latest/api/transformations.html.

    >>> import fallline as fl, jax
    >>> tx = transform(fl.Momentum(), lr=lambda t: 0.5 / (1 + t))
    >>> w = {"a": jax.numpy.ones(2)}
    >>> updates, state = jax.jit(tx.update)(w, tx.init(w), w)
    >>> updates["a"].tolist(), int(state.count)
    ([-0.5, -0.5], 1)
    """
    functional = Functional(opt, settings)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return functional.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(functional.init, update)


def rest(opt: Any, state: Any, params: Any, **settings: Any) -> Any:
    """Return the point to report of a run with `transform(opt, **settings)`, as `opt.rest` does outside `jit`.

    Nesterov and Schedule-Free take gradients at another point than that; for all others it is the parameters.

    Parameters
    ----------
    opt, settings: as for `transform`.
    state: the state of the transformation, as it is with these parameters.
    params: the parameters that `optax.apply_updates` gives; the result is a tree like it, of the same dtypes.

    Raises TypeError or ValueError as `transform` and its `init` do.

    >>> import fallline as fl, jax, optax
    >>> opt, w = fl.Nesterov(lr=1.0, momentum=0.5), jax.numpy.zeros(1)
    >>> tx = transform(opt)
    >>> updates, state = tx.update(jax.numpy.ones(1), tx.init(w))
    >>> w = optax.apply_updates(w, updates)
    >>> w.tolist(), rest(opt, state, w).tolist()
    ([-1.5], [-1.0])
    """
    return Functional(opt, settings).rest(state, params)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from fallline._optimizer.named import OPTIMIZERS
        from fallline.dialects import optax as dialects

        own = {plain(own): own for own in OPTIMIZERS}.get(plain(name))
        if name in dialects.__all__:
            hint = f" Write fallline.optax.transform(fallline.dialects.optax.{name}(...))."
        elif own is not None:
            hint = f" Write fallline.optax.transform(fallline.{own}(...))."
        elif hasattr(optax, name):
            hint = f" optax has it: optax.{name}, which goes with what fallline.optax.transform returns."
        else:
            hint = meant_within(name, __all__)
        raise AttributeError(f"module 'fallline.optax' has no attribute {name!r}. Known: {', '.join(__all__)}.{hint}",
                             name=name)
