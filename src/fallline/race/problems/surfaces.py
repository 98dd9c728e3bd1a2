"""Functions of two variables that everyone knows from the pictures: value, gradient, where to start, what to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fallline._messages.values import brief
from fallline.race.problems.problem import Problem

Array = np.ndarray


@dataclass(frozen=True)
class Surface:
    """A function of (x, y) with its gradient; `start` is where paths begin, `window` what the picture shows.

    `formula` gives the value and the gradient's two coordinates, in arithmetic that can be traced as a rule's can.
    """

    title: str
    note: str
    formula: Callable[[Any, Any], tuple[Any, Any, Any]]
    start: tuple[float, float]
    window: tuple[tuple[float, float], tuple[float, float]]
    minima: tuple[tuple[float, float], ...]
    target: float
    convex: bool = False

    def value_and_grad(self, p: Array) -> tuple[float, Array]:
        """The value at p = (x, y), of shape (2,), and the gradient there."""
        value, *gradient = self.formula(*p)
        return float(value), np.array(gradient)


def rosenbrock(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """(1 − x)² + 100 (y − x²)² (Rosenbrock 1960): a curved valley with a flat floor, minimum 0 at (1, 1)."""
    a, b = 1 - x, y - x * x
    return a * a + 100 * b * b, -2 * a - 400 * x * b, 200 * b


def beale(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Σ (cᵢ − x + x yⁱ)², c = 1.5, 2.25, 2.625 (Beale 1958): a plateau with sharp corners, minimum 0 at (3, 1/2)."""
    value, gx, gy, power = 0.0, 0.0, 0.0, 1.0
    for i, c in enumerate((1.5, 2.25, 2.625), start=1):
        slope, power = i * power, power * y  # of yⁱ, and yⁱ itself
        r = c - x + x * power
        value = value + r * r
        gx = gx + 2 * r * (power - 1)
        gy = gy + 2 * r * x * slope
    return value, gx, gy


def saddle(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """x²/2 + y⁴/4 − y²/2 + 1/4: a saddle at (0, 0) between the minima 0 at (0, ±1)."""
    xx, yy = x * x, y * y
    return xx / 2 + yy * yy / 4 - yy / 2 + 1 / 4, x, yy * y - y


def bowl(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """(x − 1)²/2 + 25 (y − 1/2)²: an elongated bowl, condition number 50, minimum 0 at (1, 1/2).

    It is not at the origin, where steps that are a share of the parameters would come to rest by themselves.
    """
    a, b = x - 1, y - 0.5
    return a * a / 2 + 25 * b * b, a, 50 * b


def himmelblau(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """(x² + y − 11)² + (x + y² − 7)² (Himmelblau 1972): four minima, each 0."""
    a, b = x * x + y - 11, x + y * y - 7
    return a * a + b * b, 4 * x * a + 2 * b, 2 * a + 4 * y * b


SURFACES: dict[str, Surface] = {
    "rosenbrock": Surface(
        "Rosenbrock", "a curved valley with a flat floor", rosenbrock, (-1.5, 2.0), ((-2, 2), (-1, 3)), ((1, 1),), 0.1
    ),
    "beale": Surface(
        "Beale", "a plateau with sharp corners", beale, (1.0, 1.5), ((-0.5, 4.5), (-1.5, 2)), ((3, 0.5),), 1e-3
    ),
    "saddle": Surface(
        "Saddle", "flat where the ways part", saddle, (1.5, 0.01), ((-2, 2), (-1.6, 1.6)), ((0, 1), (0, -1)), 1e-3
    ),
    "bowl": Surface(
        "Elongated bowl", "fifty times steeper across", bowl, (-2.5, 1.5), ((-3, 3), (-1, 2)), ((1, 0.5),), 1e-3, True
    ),
    "himmelblau": Surface(
        "Himmelblau",
        "four minima, equally deep",
        himmelblau,
        (-0.5, -1.0),
        ((-5, 5), (-5, 5)),
        ((3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)),
        1e-3,
    ),
}

JITTER = 0.1


def surface_at(source: str | Surface) -> Surface:
    """The surface by that name, or one of your own; raises ValueError or TypeError for anything else."""
    if isinstance(source, Surface):
        return source
    if not isinstance(source, str):
        raise TypeError(f"surface must be a name or a fallline.race.Surface. Got {brief(source)}.")
    if source not in SURFACES:
        raise ValueError(f"surface must be one of {', '.join(SURFACES)}, or a fallline.race.Surface. Got {source!r}.")
    return SURFACES[source]


def at_start(surface: Surface, diagonal: bool = False) -> Problem:
    """The surface from its given start, as the picture shows it: a vector (x, y), or a matrix with that diagonal."""
    start = np.array(surface.start, dtype=float)
    function = surface.value_and_grad
    if diagonal:
        start, function = np.diag(start), partial(_of_diagonal, function)
    return Problem(start, function, target=surface.target, name=surface.title, convex=surface.convex)


def plane(params: Array) -> Array:
    """Where on a surface parameters as of `at_start` lie."""
    return params.diagonal() if params.ndim == 2 else params


def _of_diagonal(function: Callable[[Array], tuple[float, Array]], w: Array) -> tuple[float, Array]:
    value, gradient = function(w.diagonal())
    return value, np.diag(gradient)


def near_start(name: str, seed: int) -> Problem:
    """The surface from a start drawn around the given one, so that no result is the luck of one point."""
    surface = SURFACES[name]
    start = np.array(surface.start) + JITTER * np.random.default_rng(seed).standard_normal(2)
    return Problem(start, surface.value_and_grad, target=surface.target, name=name, convex=surface.convex)
