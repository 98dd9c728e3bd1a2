"""Programs over many leaves at once, compiled for what these are: outside `jit`, where arrays and scalars are known.

Only state that is written is donated; scalars are arguments, so that nothing is compiled anew when a setting changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fallline._arrays.dtypes import kept
from fallline._arrays.leaves import joined, split
from fallline._engines.jax import kernel
from fallline._formula.program import OUTSIDE, Program

__all__ = ["Given", "Leaf", "are_finite", "called", "compiled", "forms", "placed"]

Arrays = Mapping[str, Sequence[Any]]


class Leaf(NamedTuple):
    """What a program is traced for: the dtype of a leaf, which row of scalars it has, and which scalars, by place,
    differ by coordinate."""

    dtype: np.dtype
    row: int
    columns: tuple[int, ...]


class Given(NamedTuple):
    """What a program runs over: by name an array for each leaf, those that it reads and those that it writes, too; rows
    of scalars; and for each leaf those that differ by coordinate."""

    read: Arrays
    written: Arrays
    rows: Sequence[np.ndarray]
    columns: Sequence[Sequence[np.ndarray]]


def placed(array: Any) -> Any:
    """Where an array has to stay, with the computation; None if it follows others."""
    return array.sharding if array.committed else None


def forms(arrays: Sequence[Any]) -> list[Any]:
    """Of arrays the objects that say what they are and where, which are the same for all that one program returns."""
    return [*(array.aval for array in arrays), *(array.sharding for array in arrays)]


def called(executable: Callable[..., Any], given: Given) -> Any:
    """What a compiled program makes."""
    with jax.enable_x64(True), jax.disable_jit(False):  # for scalars of float64; who debugs has no use for our code
        return executable(*given)


def compiled(program: Program, leaves: Sequence[Leaf], given: Given, others: Arrays) -> Callable[..., Any]:
    """A program for these leaves and the like, over arrays like these; what it makes besides new values of those that
    are written is like `others`, by name.

    It gives new arrays by name: those of the written, then the others. (JAX has the first that fit take the place of
    what is donated.) One that reads gives its totals in float64, with a row for each leaf.
    """
    arrays, treedef = jax.tree.flatten(given)
    like = tuple((a.shape, a.dtype, placed(a) if isinstance(a, jax.Array) else None) for a in arrays)
    where = tuple(tuple((name, tuple(map(placed, own))) for name, own in made.items())
                  for made in (given.written, others))  # fmt: skip
    return _compiled(program, tuple(leaves), treedef, like, where)


@lru_cache(maxsize=64)  # as optimizers of the same chain and tree come by the dozen
def _compiled(program: Program, leaves: tuple[Leaf, ...], treedef: Any, like: tuple[Any, ...],
              where: tuple[Any, ...]) -> Callable[..., Any]:
    given = treedef.unflatten(jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype, place in like)
    act = partial(_totals if program.totals else _new, program, leaves)
    places = tuple({name: list(own) for name, own in made} for made in where)
    with jax.enable_x64(True), jax.disable_jit(False):
        traced = jax.jit(act, donate_argnums=1, out_shardings=None if program.totals else places)
        return traced.lower(*given).compile()


def _new(program: Program, leaves: Sequence[Leaf], *given: Any) -> tuple[dict[str, list[Any]], ...]:
    def run(leaf: Leaf, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> dict[str, Any]:
        new = kernel.run(program, arrays, scalars)
        return {name: joined(value, leaf.dtype if name in OUTSIDE else kept(leaf.dtype)) for name, value in new.items()}

    own = Given(*given)
    each = _each(run, program, leaves, own)
    made = {name: [new[name] for new in each] for name, _ in program.outputs}
    return {name: made.pop(name) for name in own.written}, made


def _totals(program: Program, leaves: Sequence[Leaf], *given: Any) -> Any:
    def run(leaf: Leaf, arrays: Mapping[str, Any], scalars: Sequence[Any]) -> Any:
        return jnp.stack(kernel.totals(program, arrays, scalars))

    return jnp.stack(_each(run, program, leaves, Given(*given)))


def _each(run: Callable[..., Any], program: Program, leaves: Sequence[Leaf], given: Given) -> list[Any]:
    """What is made of each leaf; those that are alike are traced once."""
    arrays = {**given.read, **given.written}
    traced: dict[Any, Any] = {}
    found = []
    for k, leaf in enumerate(leaves):
        alike = leaf.dtype, leaf.columns
        if alike not in traced:
            traced[alike] = jax.jit(partial(_split, run, program, leaf))
        found.append(traced[alike]({name: own[k] for name, own in arrays.items()}, given.rows[leaf.row],
                                   given.columns[k]))
    return found


def _split(run: Callable[..., Any], program: Program, leaf: Leaf, arrays: Mapping[str, Any], row: Any,
           columns: Sequence[Any]) -> Any:
    """What is made of a leaf as reals, of the dtype computed in."""
    both = (..., None) if leaf.dtype.kind == "c" else ...  # parts have the coordinate's setting
    scalars = list(row)
    for place, column in zip(leaf.columns, columns):
        scalars[place] = column[both]
    own = {name: split(lax.convert_element_type(a, kept(leaf.dtype))) for name, a in arrays.items()}
    return run(leaf, own, scalars)


def are_finite(arrays: Sequence[Any]) -> Callable[[], bool]:
    """Have it found out whether arrays are finite, by one program; the answer waits for that."""
    with jax.enable_x64(True):
        found = _are_finite(arrays)
    return lambda: bool(found)


@jax.jit
def _are_finite(arrays: Sequence[Any]) -> Any:
    alike: dict[Any, list[Any]] = {}  # which XLA looks at in one pass
    for array in arrays:
        alike.setdefault(array.shape, []).append(jnp.isfinite(array))
    return jnp.stack([reduce(jnp.logical_and, own).all() for own in alike.values()]).all()
