"""Values of hyper-parameters: a number, a schedule, or a tree of these by leaf, by path or by coordinate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fallline._arrays.dtypes import LACKED
from fallline._arrays.leaves import host
from fallline._arrays.namespaces import namespace
from fallline._arrays.trees import Treedef, flatten, holds_none, is_container, paths, plain, unlike_upper_levels
from fallline._formula.ranges import WHOLE, Hyper
from fallline._messages.callables import check_arity, check_schedule, is_function, itself
from fallline._messages.remedies import as_array, holds_arrays_of_jax, is_converted, is_masked
from fallline._messages.suggestions import REMEDY
from fallline._messages.values import brief, shown

__all__ = ["ByPath", "Setting", "anew", "by_path", "check", "hearing", "holds_function", "owned", "renewed", "resolve"]

Setting = Any  # float | Callable[[int], float] | np.ndarray (per coordinate)


@dataclass(frozen=True)
class ByPath:
    """A setting that differs by leaf: a function of the leaf's path, such as "layer1/W"."""

    function: Callable[[str], Any]

    def __repr__(self) -> str:
        return f"by_path({shown(self.function)})"


def by_path(function: Callable[[str], Any]) -> ByPath:
    """Give a hyper-parameter a value for each leaf, by the leaf's path.

    `function` gets the path ("layer1/W"; "" for a single array) and returns a number, a schedule, or an array shaped
    like the leaf.

    Raises TypeError if it is no function of one argument; its return values are checked once the parameters are known.

    >>> import fallline as fl
    >>> fl.Adam(lr=by_path(lambda path: 0.0 if path.endswith("b") else 0.01)).lr
    by_path(<lambda>)
    """
    if not is_function(function):
        raise TypeError(f"by_path needs a function of the leaf's path. Got {brief(function)}.")
    check_arity(function, "by_path needs a function of one argument, the leaf's path")
    return ByPath(function)


def check(hyper: Hyper, value: Any, owner: str) -> Any:
    """`value` if every number in it is in range (numbers as floats); schedules are checked when they are called."""
    if hyper.range is WHOLE:
        return hyper.check(value, owner)
    if not is_container(value) or callable(value):
        return value if _is_either(value) else _check_leaf(hyper, value, owner)
    leaves, treedef = flatten(plain(value), callable)
    return treedef.unflatten([leaf if _is_either(leaf) else _check_within(hyper, leaf, owner, path)
                              for leaf, path in zip(leaves, paths(treedef))])


def _is_either(value: Any) -> bool:
    """Whether a value may be a schedule or, as a module that JAX knows, a tree of settings: what its leaves show."""
    return callable(value) and is_container(value) and not holds_arrays_of_jax(value)


def _check_within(hyper: Hyper, value: Any, owner: str, path: str) -> Any:
    try:
        return _check_leaf(hyper, value, owner)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} It stands at {path!r}." if path else str(error)) from None


def hearing(value: Any) -> list[Any]:
    """The schedules of a setting that hear values."""
    return [leaf for leaf in flatten(value)[0] if getattr(leaf, "hears", False) is True]


def anew(value: Any) -> Any:
    """A setting in containers of its own, whose schedules have heard nothing yet."""
    if not hearing(value):
        return renewed(value)
    new = copy.deepcopy(value)
    for schedule in hearing(new):
        schedule._forget()
    return new


def renewed(value: Any) -> Any:
    """A setting in containers of its own: a tree that someone else can reach must not be changed past the checks."""
    if not is_container(value):
        return value
    leaves, treedef = flatten(plain(value), callable)
    return treedef.unflatten(leaves)


def holds_function(setting: Any) -> bool:
    """Whether a setting is a schedule, or one anywhere in a tree; by path there may be."""
    return any(callable(leaf) or isinstance(leaf, ByPath) for leaf in flatten(setting, callable)[0])


def owned(value: Any) -> Any:
    """A setting whose arrays, too, are its own, wherever they lay."""
    if is_container(value) and not callable(value):
        leaves, treedef = flatten(value, callable)
        return treedef.unflatten(map(owned, leaves))
    if not isinstance(value, np.ndarray):
        return value
    array = np.array(value)
    array.flags.writeable = False
    return array


def _check_leaf(hyper: Hyper, value: Any, owner: str) -> Any:
    if isinstance(value, ByPath):
        return value
    given = _as_array(value)
    if given is not None:
        return _check_array(hyper, given, owner, "" if given is value else f" (parameters? {REMEDY})")
    if looks_like_parameters(value):
        raise TypeError(f"{hyper.name} of {owner} must be a number, a schedule or a tree of these. "
                        f"Got {type(value).__name__}{as_array(value) or f': {REMEDY}'}.")
    if isinstance(value, type):
        raise TypeError(f"{hyper.name} of {owner} must be a number, a schedule or a tree of these. "
                        f"Got {brief(value)}{itself(value)}.")
    if is_function(value):
        check_schedule(value, f"{hyper.name} of {owner}")
        return copy.deepcopy(value) if hearing(value) else value  # what it hears is the optimizer's own
    return hyper.check(value, owner)


def _as_array(value: Any) -> np.ndarray | None:
    """An array of any library as NumPy's, in host memory; None for what is no array, a number, or to be trained."""
    if isinstance(value, np.ndarray):
        return value if value.ndim else None
    if not getattr(value, "ndim", 0) or getattr(value, "requires_grad", False):
        return None
    try:
        return None if namespace(value) is None or is_converted(value) else host(value)
    except Exception:  # of another library, for what cannot be read: a tracer of JAX, a meta tensor of torch
        return None


def looks_like_parameters(value: Any) -> bool:
    """Whether someone passed parameters where settings go: a torch module, its parameters, arrays or a tree of them."""
    if isinstance(value, (dict, list, tuple)):
        return any(map(looks_like_parameters, value.values() if isinstance(value, dict) else value))
    return bool(hasattr(value, "__next__") or hasattr(value, "parameters") or getattr(value, "ndim", 0)
                or holds_arrays_of_jax(value))


def _check_array(hyper: Hyper, value: np.ndarray, owner: str, hint: str) -> np.ndarray:
    if is_masked(value) or (value.dtype.kind not in "fiu" and value.dtype.name not in LACKED):
        got = value.dtype if type(value) is np.ndarray else type(value).__name__
        raise TypeError(f"{hyper.name} of {owner}, one per coordinate, must be an array of real numbers. "
                        f"Got {got}{hint}{as_array(value)}.")
    # A copy: later changes of the caller's array do not reach the optimizer. The product of matrices is another one.
    array = np.array(value, np.float64, subok=not isinstance(value, np.matrix))
    array.flags.writeable = False
    if array.size:
        for extreme in (array.min(), array.max()):
            hyper.check(extreme, owner, f" among the values per coordinate{hint}")
    return array


def resolve(hyper: Hyper, value: Any, owner: str, treedef: Treedef, shapes: Sequence[tuple[int, ...]],
            enters: str) -> Setting | list[Setting]:
    """The setting of every leaf: one for all, or a list in the order of the leaves.

    `enters`: what a formula makes of this hyper-parameter that excludes some: a "power" (a logarithm, an exponential)
    or a number of each "leaf" values per coordinate, one of the "tree" values that differ by leaf.
    """
    if not (isinstance(value, ByPath) or _is_array(value) or is_container(value)):
        return value
    names = paths(treedef)
    settings = _by_leaf(hyper, value, owner, treedef, names)
    for k, setting in enumerate(settings):
        if _is_array(setting):
            if setting.shape != shapes[k]:
                raise ValueError(f"{hyper.name} of {owner}, one per coordinate, must have the shape {shapes[k]} of "
                                 f"{names[k] or 'the parameter'}. Got {setting.shape}.")
            if enters:
                how = "stands in a power, log or exp of the formula" if enters == "power" else \
                    f"is used in a number for the whole {enters}"
                raise TypeError(f"{hyper.name} of {owner} {how} and cannot differ by coordinate: give one number"
                                f"{' for each leaf' * (enters != 'tree')}.")
    traced = any(hasattr(setting, "dtype") for setting in settings)  # of which it cannot be said whether they are equal
    if enters == "tree" and any(setting is not settings[0] and (traced or setting != settings[0])
                                for setting in settings):
        raise TypeError(f"{hyper.name} of {owner} is used in a number for the whole tree and cannot differ by leaf: "
                        "give one value.")
    return settings


def _is_array(setting: Any) -> bool:
    """Whether it is one for each coordinate, in NumPy's array or one that JAX traces."""
    return isinstance(setting, np.ndarray) or getattr(setting, "ndim", 0) > 0


def _by_leaf(hyper: Hyper, value: Any, owner: str, treedef: Treedef, names: list[str]) -> list[Setting]:
    if isinstance(value, ByPath):
        return [_at_path(hyper, value, owner, name) for name in names]
    if _is_array(value) and len(names) == 1:
        return [value]
    if treedef.spec is None and _is_either(value):
        return [_check_within(hyper, value, owner, "")]
    tree = treedef.unflatten(range(len(names)))
    if not _is_array(value):
        spread = treedef.spread(value) or treedef.spread(_completed(value, tree))
        if spread is not None:
            if any(map(_is_either, flatten(value, callable)[0])):
                spread = [_check_within(hyper, v, owner, name) for v, name in zip(spread, names)]
            return [_at_path(hyper, v, owner, name) if isinstance(v, ByPath) else v for v, name in zip(spread, names)]
    several = ", ".join(map(repr, names[:5])) + (" ..." if len(names) > 5 else "")
    where = several if treedef.spec is not None else "a single array"
    if holds_none(tree):
        where += "; leaves of other parts may have anything"
    got = f"an array of shape {value.shape}" if _is_array(value) else brief(value)
    raise ValueError(f"{hyper.name} of {owner} must have the structure of the parameters or of their upper levels "
                     f"({where}). Got {got}{unlike_upper_levels(treedef, _completed(value, tree))}.")


def _completed(value: Any, tree: Any) -> Any:
    """A tree of settings with something at all that holds no leaf of another tree.

    That is where a partition has the leaves of other parts: a tree of settings for one part may have anything there,
    and its dicts nothing.
    """
    if not flatten(tree)[0]:
        return 0.0
    if isinstance(value, dict) and isinstance(tree, Mapping) and value.keys() <= tree.keys():
        return {key: _completed(value.get(key, value), own) for key, own in tree.items()
                if key in value or not flatten(own)[0]}
    if type(value) is type(tree) in (list, tuple) and len(value) == len(tree):
        return type(value)(map(_completed, value, tree))
    return value


def _at_path(hyper: Hyper, setting: ByPath, owner: str, name: str) -> Setting:
    """What a setting by path is for the leaf of that path."""
    found = setting.function(name)
    if isinstance(found, ByPath) or is_container(found):
        raise TypeError(f"{hyper.name} of {owner} at {name!r}, one leaf, must be a number, a schedule or an array of "
                        f"its shape. Got {brief(found)}.")
    if hearing(found):
        raise TypeError(f"{hyper.name} of {owner} by path cannot be a schedule that hears values, as each leaf would "
                        f"have its own: give one for all leaves, or a tree of them. Got {brief(found)}.")
    return check(hyper, found, f"{owner} at {name!r}")
