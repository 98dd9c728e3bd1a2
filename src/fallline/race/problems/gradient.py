"""Whether a problem's gradient is that of its value: wherever it starts, in whatever units and precision."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from enum import Enum
from math import isfinite, log2
from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.dtypes import CASTABLE, DTYPES, computed, dtype_named, real
from fallline._arrays.leaves import (
    dtype_of,
    host,
    is_complex,
    kind_of,
)
from fallline._loops.arguments import pair
from fallline.race.problems.problem import Problem
from fallline.race.problems.vectors import Reals, row_of, with_row

MOVES, LEAST = 12, 3  # of a single leaf, and of each of many
RUNG = 4.0  # the factor between the lengths that are tried of a move
RUNGS, RUNGS_FROM_ZERO = 20, 40  # down to 1e-12 of the size of the parameters; of a leaf of zeros nobody knows the size
CLOSE = 2e-3  # the share by which a right gradient may be off, rounding aside
CLEAR = 4.0  # how many times its rounding errors a change must be to say anything
TURN = 0.8  # how much the gradient may turn on the way, between 0 and 1, for its integral to be known



def check_gradient(problem: Problem) -> None:
    """Compare how the value of `problem` changes around its start with the integral of its gradient.

    Every leaf is moved by itself, so that the error can name the one at fault: all its numbers together and a few of
    them alone, by a share of their own size, at many lengths. A length counts where the change stands out from
    rounding and the gradient does not turn about, and not where it leads out of the function's domain (NaN, infinity,
    an ArithmeticError or ValueError). `check_step` of the problem is the only length if it is given; at 0 only the form
    of value and gradient is looked at.

    Raises
    ------
    ValueError, TypeError
        The gradient is not that of the value, or has another structure than the parameters; the value is not finite;
        there are no parameters, or one is no array of numbers.
    """
    leaves, treedef = trees.flatten(problem.params)
    if not leaves:
        raise ValueError(f"params of {problem.name} must hold at least one array or number. Got {problem.params!r}.")
    named = [f' of "{path}"' * bool(path) + f" of {problem.name}" for path in trees.paths(treedef)]
    for leaf, where in zip(leaves, named, strict=True):
        kind_of(leaf, f"The parameter{where}")
    value, slopes = _at_start(problem)
    if problem.check_step == 0:
        return
    rng = np.random.default_rng(0)
    precision = _precision(problem, value)
    for i, where in enumerate(named):
        if slopes[i] is not None and row_of(leaves[i]).size:
            _check_leaf(Around(problem, i, row_of(leaves[i]), row_of(slopes[i]), precision), where, rng)


def _at_start(problem: Problem) -> tuple[float, list[Any]]:
    """The value, and the gradient of each leaf, None where there is none."""
    params = trees.copy(problem.params)
    leaves, treedef = trees.flatten(params)
    value, gradient = pair(problem.first_value_and_grad(params), problem.name)
    if not isfinite(value):
        raise ValueError(f"The value of {problem.name} must be finite at its start. Got {value}.")
    slopes = treedef.flatten_like(gradient, f"The gradient of {problem.name}", "its parameters")
    for slope, path in zip(slopes, trees.paths(treedef), strict=True):
        if slope is not None:
            kind_of(slope, f"The gradient{f' of {path!r}' * bool(path)} of {problem.name}", CASTABLE, written=False)
    shapes = [host(leaf).shape for leaf in leaves]
    found = [shape if slope is None else host(slope).shape for slope, shape in zip(slopes, shapes, strict=True)]
    if found != shapes:
        raise ValueError(
            f"The gradient of {problem.name} must have the structure and shapes of its parameters, {shapes}. "
            f"Got {found}."
        )
    return value, slopes


def _precision(problem: Problem, value: float) -> np.dtype:
    """What the value is computed in, which may be less precise than the parameters: the least that holds its values."""
    leaves, treedef = trees.flatten(problem.params)
    seen = [value]
    for apart in (0.1, 1e-2, 1e-4, 1e-8):
        rows = [row_of(leaf) for leaf in leaves]
        moved = [with_row(leaf, np.where(row == 0, apart, (1 + apart) * row)) for leaf, row in zip(leaves, rows)]
        found = _evaluated(problem, treedef.unflatten(moved))
        seen += [found[0]] if found else []
    values = np.array(seen)
    if len(set(seen)) < 3:  # too few to tell
        return min((computed(dtype_of(leaf)) for leaf in leaves), key=lambda dtype: dtype.itemsize)
    with np.errstate(all="ignore"):
        for dtype in sorted({dtype_named(row.real) for row in DTYPES.values()}, key=_epsilon, reverse=True):
            if np.array_equal(values, values.astype(dtype).astype(float)):
                return dtype
    return values.dtype


def _rounding(dtype: np.dtype, size: float, count: float = 1.0) -> float:
    """What rounding may have of a sum of that size of so many numbers."""
    import ml_dtypes

    return _epsilon(dtype) * size + float(ml_dtypes.finfo(dtype).smallest_subnormal) * count


def _epsilon(dtype: np.dtype) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)


def _evaluated(problem: Problem, params: Any) -> tuple[float, Any] | None:
    """Value and gradient at other parameters; None outside the function's domain."""
    try:
        with np.errstate(all="ignore"):
            found = pair(problem.first_value_and_grad(trees.copy(params)), problem.name)
    except (ArithmeticError, ValueError):  # as of math.sqrt
        return None
    return found if isfinite(found[0]) else None


def _check_leaf(around: Around, where: str, rng: np.random.Generator) -> None:
    wrong = around.contradiction(rng)
    if wrong is None:
        return
    if is_complex(around.leaf) and replace(around, conjugate=True).contradiction(rng) is None:
        raise ValueError(
            f"The gradient{where} must be ∂L/∂Re + i·∂L/∂Im, as torch has it. Got its conjugate, as of jax.grad: "
            "return the conjugate of that."
        )
    raise ValueError(
        f"The gradient{where} does not match finite differences of its value: between two points near the start it "
        f"says {wrong.said:.6g}, the differences say {wrong.changed:.6g}. Correct value_and_grad, or set check_step of "
        "Problem, which says how near."
    )


class Verdict(Enum):
    AGREES = "the value changes by the integral of the gradient"
    DIFFERS = "it does not"
    UNSTEADY = "the gradient turns too fast to tell at more than one length"
    SILENT = "nothing changes by more than rounding, or every length leads out of the function's domain"


@dataclass(frozen=True)
class Move:
    """How the value changes on a way, and how it should by the gradient; by how much rounding may have changed either,
    and kinks on the way the latter."""

    changed: float
    said: float
    noise: float
    bend: float
    steady: bool

    @property
    def signal(self) -> float:
        return max(abs(self.changed), abs(self.said))

    @property
    def tolerance(self) -> float:
        """As a share of the signal."""
        return CLOSE + (2 * self.noise + self.bend) / self.signal

    @property
    def agrees(self) -> bool:
        return abs(self.changed - self.said) <= self.tolerance * self.signal


def _reliable(moves: list[Move]) -> list[Move]:
    """Of moves from short to long the most in a row where the gradient is steady and the value changes in proportion:
    shorter ones may be rounding that nobody knows of, and longer ones seem steady by chance."""
    rows: list[list[Move]] = [[]]
    for move in moves:
        if not move.steady or (rows[-1] and abs(move.changed) < RUNG / 2 * abs(rows[-1][-1].changed)):
            rows.append([])
        if move.steady:
            rows[-1].append(move)
    return max(rows, key=lambda row: (any(move.changed for move in row), len(row)))


@dataclass(frozen=True)
class Around:
    """A problem where one of its leaves is moved: which, its numbers and gradient at the start, the value's precision.

    `conjugate`: take the gradient's imaginary parts the other way round.
    """

    problem: Problem
    index: int
    start: Reals
    slope: Reals
    precision: np.dtype
    conjugate: bool = False

    @property
    def leaf(self) -> Any:
        return trees.flatten(self.problem.params)[0][self.index]

    @property
    def real(self) -> np.dtype:
        return real(dtype_of(self.leaf))

    def contradiction(self, rng: np.random.Generator) -> Move | None:
        """A move that shows the gradient to be wrong; None if none does."""
        found: list[Verdict] = []
        unsteady = None
        for direction in self._directions(rng):
            verdict, move = self._judged(direction)
            if verdict is Verdict.DIFFERS:
                return move
            unsteady = move if verdict is Verdict.UNSTEADY else unsteady
            found.append(verdict)
            if found == [Verdict.SILENT] * LEAST:  # the value does not depend on this leaf
                return None
        return None if Verdict.AGREES in found else unsteady

    def _directions(self, rng: np.random.Generator) -> list[Reals]:
        """How to move the leaf, the most telling first: along the gradient, where nothing cancels; at random; against
        it; away from 0 and towards it, as domains end there; all numbers by the usual one's size; each one alone."""
        size, usual = self._sizes()
        far = size * rng.uniform(0.5, 1, size.shape)
        random = np.where(rng.random(size.shape) < 0.5, -1.0, 1.0)
        along = np.where(self.slope == 0, random, np.sign(self.slope))
        outward = np.where(self.start < 0, -1.0, 1.0)
        alike = usual * (far / size)
        together = [far * along, far * random, -far * along, far * outward, -far * outward, alike * random]
        alone = (np.where(np.arange(far.size) == k, far * along, 0.0) for k in rng.permutation(far.size))
        count = max(LEAST, MOVES // len(trees.flatten(self.problem.params)[0]))
        return [*together, *itertools.islice(alone, MOVES - len(together))][:count]

    def _sizes(self) -> tuple[Reals, float]:
        """Of each number, both parts of a complex one alike, the usual one's in place of 0; and of the usual one."""
        if self.problem.check_step is not None:
            return np.full(self.start.shape, self.problem.check_step), self.problem.check_step
        size = np.abs(self.start)
        if is_complex(self.leaf):
            size = np.hypot(size[::2], size[1::2]).repeat(2)
        known = np.sort(size[size > 0])
        usual = float(known[known.size // 2]) if known.size else 1.0
        return np.where(size > 0, size, usual), usual

    def _judged(self, direction: Reals) -> tuple[Verdict, Move | None]:
        """What the moves of all lengths say together, and one that says so."""
        if self.problem.check_step is not None:
            return self._climbed(direction, [1.0])
        rungs = RUNGS if self.start.any() else RUNGS_FROM_ZERO
        best = round(-log2(_rounding(self.precision, 1.0)) / 6)  # where rounding and curvature meet: its cube root
        down = [RUNG**-k for k in sorted(range(rungs), key=lambda k: abs(k - best))]
        up = [RUNG**k for k in range(1, RUNGS)]
        for way, lengths in ((direction, down), (direction, up), (np.sign(direction), down)):
            verdict, move = self._climbed(way, lengths)
            if move is not None and move.changed:  # else the function may not care how small its parameters are
                break
        return verdict, move

    def _climbed(self, direction: Reals, lengths: list[float]) -> tuple[Verdict, Move | None]:
        own = 2 * CLEAR * _rounding(self.real, 1.0)
        moves: dict[float, Move] = {}
        for length in lengths:
            move = self._move(length * direction)
            if move is not None and move.steady and move.agrees and move.tolerance <= 2 * (CLOSE + own):
                return Verdict.AGREES, move
            if move is not None:
                moves[length] = move
        if not moves:
            return Verdict.SILENT, None
        known = _reliable([moves[length] for length in sorted(moves)])
        finest = min(known, key=lambda move: move.tolerance, default=None)
        if finest is None:
            return Verdict.UNSTEADY, moves[min(moves)]
        fine = [move for move in known if move.tolerance <= 2 * finest.tolerance]
        if any(move.agrees for move in fine):
            return Verdict.AGREES, finest
        differ = sum(not move.agrees for move in known)
        return (Verdict.DIFFERS if differ > 1 or self.problem.check_step else Verdict.UNSTEADY), finest

    def _move(self, step: Reals) -> Move | None:
        """From `step` to half as far again, by Simpson's rule: at the start itself a function may have a kink."""
        points = [self._at(share * step) for share in (1, 1.25, 1.5)]
        if None in points:
            return None
        (near, first, g1), (_, _, g2), (far, last, g3) = points  # type: ignore[misc]
        with np.errstate(all="ignore"):
            way = far - near
            ways = [float(way @ g) for g in (g1, g2, g3)]
            length = np.abs(way)
            noise = _rounding(self.precision, abs(first) + abs(last))
            noise += _rounding(self.real, float(length @ np.abs(g2)), float(length.sum()))
            turn = abs(ways[2] - ways[0])
            steady = turn <= TURN * (abs(ways[0]) + abs(ways[2]))
            said = (ways[0] + 4 * ways[1] + ways[2]) / 6
            bend = 3 * abs(said - (ways[0] + ways[2]) / 2) + turn / 10  # a kink is off by a third of its turn at most
            move = Move(last - first, said, CLEAR * noise, bend, steady)
        return move if isfinite(move.signal) and move.noise < move.signal / CLEAR else None

    def _at(self, step: Reals) -> tuple[Reals, float, Reals] | None:
        """The leaf's numbers at a step from the start, as rounded there, the value and the gradient; None outside."""
        leaves, treedef = trees.flatten(self.problem.params)
        with np.errstate(all="ignore"):
            moved = leaves[self.index] = with_row(leaves[self.index], self.start + step)
        found = _evaluated(self.problem, treedef.unflatten(leaves))
        if found is None:
            return None
        slope = treedef.flatten_like(found[1], f"The gradient of {self.problem.name}", "its parameters")[self.index]
        row, slope = row_of(moved), row_of(slope)
        slope[1::2] *= -1 if self.conjugate else 1
        return (row, found[0], slope) if np.isfinite(row).all() and np.isfinite(slope).all() else None
