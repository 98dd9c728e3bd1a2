"""What the race runs: parameters, a value with its gradient, and how to judge the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fallline import trees
from fallline.descend import pair

ValueAndGrad = Callable[..., tuple[float, Any]]
Batches = Sequence[Any] | Callable[[int], Any]
Evaluate = Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True)
class Problem:
    """One minimisation: where it starts, its gradient, and how a result is judged.

    Parameters
    ----------
    params
        The starting point: an array or a tree of arrays; it is copied, never changed.
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

    def __post_init__(self) -> None:
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
        return {name: float(value) for name, value in figures.items()}

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
            return float(self.value_and_grad(params)[0])
        if callable(self.batches):
            raise TypeError("A Problem whose batches are a function needs evaluate=, the full training loss.")
        return float(np.mean([self.value_and_grad(params, batch)[0] for batch in self.batches]))


def check_gradient(problem: Problem, directions: int = 5) -> None:
    """Compare the gradient of `problem` at its start with finite differences, along a few random directions.

    Each direction lies in one leaf (every leaf gets one), so that the error can name the leaf at fault.

    Raises
    ------
    ValueError, TypeError
        The gradient is not that of the value, is not finite, or has another structure than the parameters; or there is
        none.
    """
    leaves, treedef = trees.flatten(problem.params)
    value, gradient = pair(problem.first_value_and_grad(problem.params), problem.name)
    slopes, _ = trees.flatten(gradient)
    shapes = [np.shape(leaf) for leaf in leaves]
    if len(slopes) != len(leaves) or [np.shape(slope) for slope in slopes] != shapes:
        raise ValueError(
            f"The gradient of {problem.name} must have the structure and shapes of its parameters, {shapes}. "
            f"Got {[np.shape(slope) for slope in slopes]}."
        )
    if not np.isfinite(value):
        raise ValueError(f"The value of {problem.name} must be finite at its start. Got {value}.")
    rng = np.random.default_rng(0)
    paths = trees.paths(treedef)
    order = [i for _ in range(-(-directions // len(leaves))) for i in range(len(leaves))]
    for i in order:
        if np.size(leaves[i]):
            _check_one(problem, leaves, treedef, i, np.asarray(slopes[i], dtype=float), rng, paths[i])


def _check_one(
    problem: Problem, leaves: list[Any], treedef: Any, i: int, slope: np.ndarray, rng: np.random.Generator, path: str
) -> None:
    leaf = np.asarray(leaves[i])
    direction = rng.standard_normal(leaf.shape)
    direction /= np.linalg.norm(direction)
    claimed = float(np.sum(slope * direction))
    # Central differences are off by h² and by the value's rounding over h; several h, and the best one counts, because
    # neither the curvature nor the precision in which the user computes is known here.
    eps = float(np.finfo(leaf.dtype).eps) if leaf.dtype.kind == "f" else float(np.finfo(float).eps)
    scale = max(1.0, float(np.abs(leaf).max()))
    measured = []
    for power in (1 / 5, 1 / 4, 1 / 3, 1 / 2.5):
        h = scale * eps**power
        ends = []
        for sign in (1, -1):
            moved = list(leaves)
            # A leaf that was a Python float stays one, as it does in a run.
            there = (leaf + sign * h * direction).astype(leaf.dtype)
            moved[i] = there if isinstance(leaves[i], np.ndarray) else float(there)
            ends.append(float(problem.first_value_and_grad(treedef.unflatten(moved))[0]))
        measured.append((ends[0] - ends[1]) / (2 * h))
    nearest = min(measured, key=lambda found: abs(found - claimed) if np.isfinite(found) else np.inf)
    floor = 10 * eps ** (2 / 3) * max(1.0, abs(float(problem.first_value_and_grad(problem.params)[0]))) / scale
    tolerance = 100 * eps**0.4 * max(abs(claimed), abs(nearest)) + floor
    if not abs(nearest - claimed) <= tolerance:
        where = f' of "{path}"' if path else ""
        raise ValueError(
            f"The gradient{where} of {problem.name} does not match finite differences of its value: along a random "
            f"direction it says {claimed:.6g}, the differences say {nearest:.6g}. Correct value_and_grad."
        )
