"""The leaves that one chain steps, in a call that JAX traces: what is known of them, and where their state starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fallline._arrays.dtypes import CASTABLE, COMPLEX, STEPPED, SUPPORTED, computed, kept
from fallline._arrays.trees import flatten, paths
from fallline._engines.jax.scalars import double, is_traced
from fallline._formula.chain import Chain
from fallline._messages.remedies import instead
from fallline._messages.values import brief
from fallline._step.leaves import leaf_name
from fallline._step.values import asked, by_leaf, first_state, of_leaf

__all__ = ["Share", "State", "followed", "is_of", "packed", "unpacked"]

# of what asks a traced value for its number
_UNKNOWN = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
            jax.errors.TracerIntegerConversionError)


class State(NamedTuple):
    """The state of a transformation: a tree of arrays, to pass on, save or print.

    Attributes
    ----------
    count: the completed steps, an int32 array of no dimensions, which stays at 2**31 - 1.
    slots: by name trees like the parameters, of arrays in their shapes and dtypes (of float32 for float16 and bfloat16;
        a rule of whole leaves may keep other shapes).
    numbers: by name what is one number, for the whole tree or for each leaf: of float64 if that is enabled, else two of
        float32 whose sum it is.
    """

    count: Any
    slots: dict[str, Any]
    numbers: dict[str, Any]


def is_of(chain: Chain, state: Any) -> bool:
    """Whether it is a state of a chain, of any tree."""
    scopes = chain.scopes().keys()
    return (isinstance(state, State) and state.numbers.keys() == scopes
            and state.slots.keys() == chain.starts().keys() - scopes)


def followed(schedule: Callable[[Any], Any], count: Any, what: str) -> Any:
    """What a schedule says of a count that JAX traces; raises TypeError if that is no number, or not to be had so."""
    try:
        with jax.enable_x64(True):
            value = schedule(lax.convert_element_type(count, jnp.int64))
    except _UNKNOWN as error:
        raise TypeError(f"The schedule of {what} needs the number of completed steps, which is not known inside jit: "
                        "use fallline.schedules, or write it with jax.numpy (jnp.where for if, jnp.cos for math.cos). "
                        f"Got {brief(schedule)}.") from error
    if np.shape(value) or not isinstance(value, (int, float, np.number, jax.Array)):
        shape = f" of shape {np.shape(value)}" * bool(np.shape(value))
        raise TypeError(f"The schedule of {what} must return one number. Got {brief(value)}{shape}.")
    return value


def packed(number: Any) -> Any:
    """A number of float64 as the state keeps it."""
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        return double(number)
    with jax.enable_x64(True):
        high = lax.convert_element_type(number, jnp.float32)
        low = lax.convert_element_type(double(number) - double(high), jnp.float32)
        return jnp.stack([high, jnp.where(jnp.isfinite(high), low, 0)], -1)


def unpacked(kept: Any) -> Any:
    """A number in float64 that the state keeps."""
    with jax.enable_x64(True):
        kept = jnp.asarray(kept)
        return kept if kept.dtype == np.float64 else double(kept[..., 0]) + double(kept[..., 1])


class Share:
    """The leaves of a tree, of parameters or gradients, that a chain steps with these settings.

    Raises ValueError or TypeError for leaves that cannot be stepped, and settings that do not fit.
    """

    def __init__(self, chain: Chain, settings: Mapping[str, Any], tree: Any, what: str) -> None:
        self.chain = chain
        leaves, self.treedef = flatten(tree)
        self.paths = paths(self.treedef)
        self.leaves = [_array(leaf, leaf_name(path, what), chain) for path, leaf in zip(self.paths, leaves)]
        self.shapes = [tuple(np.shape(leaf)) for leaf in self.leaves]
        self.dtypes = [np.dtype(leaf.dtype) for leaf in self.leaves]
        self.computed = list(map(computed, self.dtypes))
        self._settings = by_leaf(chain, settings, self.treedef, self.shapes)

    def setting(self, qualified: str, k: int) -> Any:
        """A hyper-parameter as it was given for leaf k."""
        return of_leaf(self._settings[qualified], k)

    def value(self, qualified: str, setting: Any, count: Any) -> Any:
        """A hyper-parameter's value after so many completed steps."""
        if not callable(setting):
            return setting
        if not is_traced(count):
            return asked(self.chain, qualified, setting, int(count))
        return followed(setting, count, f"{self.chain.hyper[qualified].name} of {self.chain.owner(qualified)}")

    def gradients(self, gs: Sequence[Any]) -> list[Any]:
        """Gradients of the leaves, in their dtypes.

        Raises ValueError or TypeError, naming the leaf, for what is no gradient of it.
        """
        found = []
        for path, given, shape, dtype in zip(self.paths, gs, self.shapes, self.dtypes):
            name = leaf_name(path, "gradient")
            if given is None:
                raise ValueError(f"{name} is None, but leaves count their steps together here: pass zeros, or step "
                                 "the others alone, by fallline.mask.")
            g = _array(given, name, self.chain, CASTABLE)
            if tuple(np.shape(g)) != shape:
                raise ValueError(f"{name} must have the shape {shape}. Got {tuple(np.shape(g))}.")
            if str(g.dtype) in COMPLEX and dtype.kind != "c":
                raise TypeError(f"{name} must be real, as the parameter is {dtype}. Got {g.dtype}: pass its real part.")
            found.append(lax.convert_element_type(g, dtype))
        return found

    def slots(self, state: State) -> dict[str, list[Any]]:
        """The arrays of a state, by slot one for each leaf.

        Raises ValueError, naming the leaf, for a state of other leaves.
        """
        found = {}
        for slot, tree in state.slots.items():
            found[slot] = self.treedef.flatten_like(tree, f"slots[{slot!r}] of the state", "the parameters")
            for path, array, leaf in zip(self.paths, found[slot], self.shapes):
                if np.shape(array) != (shape := self.chain.shape(slot, leaf)):
                    raise ValueError(f"{leaf_name(path, f'state {slot}')} must have the shape {shape}. Got "
                                     f"{np.shape(array)}: it is of other parameters.")
        return found

    def still(self) -> list[Any]:
        """Increments that leave every leaf as it is."""
        return [jnp.full_like(leaf, -0.0) for leaf in self.leaves]

    def holds(self, state: State) -> Any:
        """Whether the coming call only gathers gradients (`rules.accumulate`)."""
        gathers = self.chain.gathers
        assert gathers is not None
        with jax.enable_x64(True):
            return unpacked(state.numbers[gathers.calls]) + 1 < self.setting(gathers.n, 0)

    def started(self) -> State:
        """The state before the first step."""
        starts, scopes = self.chain.starts(), self.chain.scopes()
        every = range(len(self.leaves))
        with jax.debug_nans(False):  # NaN is where state starts that is not known before a step
            slots = {slot: self.treedef.unflatten([self._begun(slot, start, k) for k in every])
                     for slot, start in starts.items() if slot not in scopes}
        numbers = {slot: packed(self._start(starts[slot], 0)) if over == "tree" else
                   self.treedef.unflatten([packed(self._start(starts[slot], k)) for k in every])
                   for slot, over in scopes.items()}
        return State(jnp.zeros((), jnp.int32), slots, numbers)

    def _start(self, start: float | str, k: int) -> Any:
        return self.value(start, self.setting(start, k), 0) if isinstance(start, str) else start

    def _begun(self, slot: str, start: float | str, k: int) -> Any:
        value, dtype = self._start(start, k), kept(self.dtypes[k])
        if not is_traced(value):
            value = first_state(self.chain, value, self.computed[k])
        shape = self.chain.shape(slot, self.shapes[k])
        if dtype.kind == "c":
            value = value + 1j * value
        if shape != self.shapes[k]:
            return jnp.full(shape, value, dtype)
        return jnp.full_like(self.leaves[k], value, dtype)


def _array(leaf: Any, name: str, chain: Chain, dtypes: Sequence[str] = STEPPED) -> Any:
    """A leaf as an array of JAX; raises TypeError for what cannot be stepped. NumPy's of float64 are of float32 where
    JAX has no others.

    One that is a constant of what is compiled is kept from XLA's knowledge: it would compute ahead some of what is made
    of it, and not round the rest by itself.
    """
    is_constant = not is_traced(leaf) and is_traced(jnp.zeros(()))
    if isinstance(leaf, (float, complex)):
        leaf = jnp.asarray(leaf)
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or str(dtype) not in dtypes:
        got, remedy = (brief(leaf), instead(leaf, name)) if dtype is None else (str(dtype), "")
        remedy = remedy or ": leave it out of what is trained"
        raise TypeError(f"{name} must be an array of {SUPPORTED}. Got {got}{remedy}.")
    if chain.rule.whole_leaf and np.dtype(dtype).kind == "c":
        rule = chain.owner(chain.rule_name)
        raise TypeError(f"{name} must be real, as {rule} is a function of whole leaves. Got {dtype}.")
    array = jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
    return lax.optimization_barrier(array) if is_constant else array
