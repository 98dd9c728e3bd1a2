"""L-BFGS-B of SciPy on problems without noise: what to take there, beside those that race."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from fallline._loops.arguments import pair
from fallline.race.problems.named import ProblemSource, problem_at
from fallline.race.problems.vectors import Reals, vector_of, with_vector
from fallline.race.protocol.runs import Outcome, steps_to

__all__ = ["NAME", "Beside", "BesideRun"]

NAME = "L-BFGS-B"


@dataclass(frozen=True)
class Beside:
    """How it ended: its outcome with the curve over gradients taken, how many gradients and iterations it took, and how
    many gradients to the target."""

    outcome: Outcome
    gradients: int
    iterations: int
    to_target: int | None


@dataclass(frozen=True)
class BesideRun:
    """One run from one seed with SciPy's defaults, which may take as many gradients as the others take steps.

    Its loss at a mark is that of its last iterate when so many gradients have been taken.
    """

    problem: ProblemSource
    seed: int
    steps: int
    marks: tuple[int, ...]

    def __call__(self) -> Beside:
        from scipy.optimize import minimize

        problem = problem_at(self.problem, self.seed)
        start = vector_of(problem.params)
        accepted: list[tuple[int, Reals]] = [(0, start)]
        taken = 0

        def value_and_grad(x: Reals) -> tuple[float, Reals]:
            nonlocal taken
            if taken == self.steps:
                raise _SpentError
            taken += 1
            value, grad = pair(problem.value_and_grad(with_vector(problem.params, x)), problem.name)
            return float(value), vector_of(grad, problem.params)

        with contextlib.suppress(_SpentError, OverflowError):
            minimize(value_and_grad, start, jac=True, method=NAME, options={"maxiter": self.steps},
                     callback=lambda x: accepted.append((taken, x.copy())))  # fmt: skip
        measured = [problem.measure(with_vector(problem.params, x)) for _, x in accepted]
        losses = [loss if np.isfinite(loss := figures.pop("train_loss")) else np.inf for figures in measured]
        counts = [count for count, _ in accepted]
        curve = [losses[k] for k in np.searchsorted(counts, self.marks, side="right") - 1]
        outcome = Outcome(losses[-1], measured[-1], curve)
        return Beside(outcome, taken, len(accepted) - 1, steps_to(problem.target, counts, losses))


class _SpentError(Exception):
    """All gradients have been taken."""
