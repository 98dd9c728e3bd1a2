"""What the race runs: parameters, a value with its gradient, and how to judge the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import dtype_name, number
from fallline._loops.arguments import pair

__all__ = ["Batches", "Evaluate", "Problem", "ValueAndGrad"]

ValueAndGrad = Callable[..., tuple[float, Any]]
Batches = Sequence[Any] | Callable[[int], Any]
Evaluate = Callable[[Any], Mapping[str, float]]

_STEP = "check_step of Problem must be"


@dataclass(frozen=True)
class Problem:
    """One minimisation: where it starts, its gradient, and how a result is judged.

    Parameters
    ----------
    params
        The starting point: an array or a tree of arrays, of NumPy, torch or JAX, or numbers; it is copied, never
        changed. Whole numbers become floats.
    value_and_grad
        ``value_and_grad(params, batch) -> (value, gradient)``; without `batches`, ``value_and_grad(params)``.
        The gradient has the structure and shapes of `params`.
    batches
        A sequence of mini-batches, which the race goes through in an order drawn anew each epoch from the seed, or a
        function of the number of completed steps, which is used as it is.
    evaluate
        ``evaluate(params) -> {"train_loss": ..., "test_accuracy": ...}``: the full training loss, by which rates are
        tuned and optimisers ranked, and optionally the accuracy on held-out data (a fraction), which is only
        reported. Without it the value at the parameters is the loss; over a sequence of batches, their mean value.
    target
        The training loss that counts as solved, for the column "steps to target"; None leaves the column out.
    name
        What the report calls the problem.
    convex
        Whether the loss is known to be convex or known not to be; None where that is not known. One claim asks.
    check_step
        How far from the start each parameter is moved, in its own units, to see before the race whether the gradient is
        that of the value. None tries many lengths, by the parameters' own size; 0 leaves the check out.

    >>> import numpy as np
    >>> bowl = Problem(np.ones(2), lambda x: (float(x @ x), 2 * x), target=1e-6, name="bowl")
    >>> bowl.loss(np.array([1.0, 2.0]))
    5.0
    """

    params: Any
    value_and_grad: ValueAndGrad
    batches: Batches | None = None
    evaluate: Evaluate | None = None
    target: float | None = None
    name: str = "problem"
    convex: bool | None = None
    check_step: float | None = None

    def __post_init__(self) -> None:
        leaves, treedef = trees.flatten(self.params)
        object.__setattr__(self, "params", treedef.unflatten(map(_floating, leaves)))
        for field in ("value_and_grad", "evaluate"):
            given = getattr(self, field)
            if not callable(given) and not (field == "evaluate" and given is None):
                raise TypeError(f"{field} of Problem must be a function. Got {given!r}.")
        if self.batches is not None and not callable(self.batches):
            if not isinstance(self.batches, Sequence | np.ndarray):
                kind = type(self.batches).__name__
                raise TypeError(f"batches of Problem must be a sequence or a function of the step number. Got {kind}.")
            if len(self.batches) == 0:
                raise ValueError("batches of Problem must not be empty. Got a sequence of length 0.")
        if self.check_step is not None and not number(self.check_step, f"{_STEP} None or a number") >= 0:
            raise ValueError(f"{_STEP} ≥ 0. Got {self.check_step}.")

    @property
    def fixed(self) -> bool:
        """Whether the seed cannot change a run: nothing here is drawn from it."""
        return self.batches is None or callable(self.batches)

    def measure(self, params: Any) -> dict[str, float]:
        """The problem's own figures at `params`, "train_loss" always among them."""
        if self.evaluate is None:
            return {"train_loss": self._mean_value(params)}
        figures = self.evaluate(params)
        if not isinstance(figures, Mapping) or "train_loss" not in figures:
            raise TypeError(f'evaluate of Problem must return a dict with "train_loss". Got {figures!r}.')
        return {name: number(value, f"{name} of evaluate must be a real number") for name, value in figures.items()}

    def loss(self, params: Any) -> float:
        """The full training loss at `params`."""
        return self.measure(params)["train_loss"]

    def first_value_and_grad(self, params: Any) -> tuple[float, Any]:
        """Value and gradient at `params`, on the first batch if there are batches."""
        if self.batches is None:
            return self.value_and_grad(params)
        batch = self.batches(0) if callable(self.batches) else self.batches[0]
        return self.value_and_grad(params, batch)

    def batch_order(self, seed: int) -> Callable[[int], Any] | None:
        """The batch of each step: a sequence is shuffled anew each epoch, by `seed` alone."""
        batches = self.batches
        if batches is None or callable(batches):
            return batches
        count = len(batches)
        order: dict[int, np.ndarray] = {}

        def batch(step: int) -> Any:
            epoch = step // count
            if epoch not in order:
                order.clear()
                order[epoch] = np.random.default_rng([seed, epoch]).permutation(count)
            return batches[int(order[epoch][step % count])]

        return batch

    def _mean_value(self, params: Any) -> float:
        if self.batches is None:
            return self._value(params)
        if callable(self.batches):
            raise TypeError("A Problem whose batches are a function needs evaluate=, the full training loss.")
        return float(np.mean([self._value(params, batch) for batch in self.batches]))

    def _value(self, *given: Any) -> float:
        return pair(self.value_and_grad(*given), self.name)[0]


def _floating(leaf: Any) -> Any:
    """A leaf as it is, or of whole numbers as the floats that its library makes of them."""
    whole = isinstance(leaf, int) or (hasattr(leaf, "dtype") and dtype_name(leaf).startswith(("int", "uint", "bool")))
    return 1.0 * leaf if whole else leaf
