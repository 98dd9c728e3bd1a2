"""How optimisers of other libraries take a step: from parameters and gradients, trees alike, to parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Protocol, cast

import numpy as np

from fallline._arrays import trees
from fallline._arrays.leaves import as_number, host, is_foreign, is_number, like, view

__all__ = ["ByFunction", "ByOptax", "ByTorch", "Steps"]


class Steps(Protocol):
    """What the race asks of any optimiser."""

    def step(self, params: Any, grads: Any) -> Any:
        """The parameters after a step; those given may be written."""


class ByTorch:
    """A torch.optim.Optimizer, on tensors that share the memory of the parameters where there is any to share."""

    def __init__(self, make: Callable[..., Any], at: Mapping[str, float]) -> None:
        self.make = partial(make, **at)
        self.optimizer: Any = None

    def step(self, params: Any, grads: Any) -> Any:
        leaves, treedef = trees.flatten(params)
        if self.optimizer is None:
            self.own, self.tensors = leaves, [_tensor(leaf) for leaf in leaves]
            self.optimizer = self.make(self.tensors)
        gradients = treedef.flatten_like(grads, "grads", "params")
        for leaf, own, tensor, grad in zip(leaves, self.own, self.tensors, gradients, strict=True):
            if leaf is not own:
                tensor.copy_(_tensor(leaf))
            tensor.grad = None if grad is None else _tensor(grad).to(tensor.dtype)
        self.optimizer.step()
        return treedef.unflatten(map(_stepped, leaves, self.own, self.tensors))


def _stepped(leaf: Any, own: Any, tensor: Any) -> Any:
    return leaf if leaf is own and _is_written(leaf) else _as_leaf(leaf, tensor.numpy(force=True))


def _tensor(leaf: Any) -> Any:
    import torch

    return torch.from_numpy(view(leaf) if _is_written(leaf) else np.array(host(leaf)))


def _is_written(leaf: Any) -> bool:
    """Whether a leaf is an array in memory that NumPy and torch share."""
    return not (is_number(leaf) or is_foreign(leaf))


class ByOptax:
    """A gradient transformation of optax, compiled by JAX; `make` gives it at keywords such as the rate."""

    def __init__(self, make: Callable[..., Any], at: Mapping[str, float]) -> None:
        self.at, self.state = dict(at), None
        self.init, self.stepped = make(**at).init, _compiled_once(make)

    def step(self, params: Any, grads: Any) -> Any:
        import jax.numpy as jnp

        leaves, treedef = trees.flatten(params)
        gradients = treedef.flatten_like(grads, "grads", "params")
        with _double_precision():
            arrays = [jnp.asarray(host(leaf)) for leaf in leaves]
            given = [jnp.asarray(0 * x if grad is None else host(grad), x.dtype) for x, grad in zip(arrays, gradients)]
            if self.state is None:
                self.state = self.init(arrays)
            new, self.state = self.stepped(self.at, given, self.state, arrays)
        return treedef.unflatten(_as_leaf(leaf, np.array(host(array))) for leaf, array in zip(leaves, new, strict=True))


def _compiled_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """One program for all rates and runs of a process: other processes make equal partials, which are not the same."""
    own = make if isinstance(make, partial) else partial(make)
    parts = own.func, own.args, tuple(sorted(own.keywords.items()))
    try:
        return _compiled(*parts)
    except TypeError:  # a keyword that cannot be looked up, as a list
        return _compiled.__wrapped__(*parts)


@lru_cache(maxsize=32)
def _compiled(make: Callable[..., Any], args: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...]) -> Any:
    import jax

    def stepped(at: Mapping[str, Any], grads: Any, state: Any, params: Any) -> Any:
        updates, state = make(*args, **dict(keywords), **at).update(grads, state, params)
        return [(x + u).astype(x.dtype) for x, u in zip(params, updates, strict=True)], state

    return cast(Callable[..., Any], jax.jit(stepped))


def _double_precision() -> Any:
    """A context in which float64 stays what it is: JAX would make float32 of it."""
    import jax

    return jax.enable_x64(True)


class ByFunction:
    """A function of parameters and gradients that returns parameters."""

    def __init__(self, function: Callable[..., Any], at: Mapping[str, float], title: str) -> None:
        self.function, self.title = partial(function, **at), title

    def step(self, params: Any, grads: Any) -> Any:
        leaves, treedef = trees.flatten(params)
        shapes = [host(leaf).shape for leaf in leaves]
        new = self.function(params, grads)
        try:
            found = [host(leaf).shape for leaf in treedef.flatten_like(new, "parameters", "params")]
        except (ValueError, TypeError, AttributeError, LookupError):
            found = []
        if found != shapes:
            raise ValueError(f"{self.title}(params, grads) must return the parameters, a tree like those given. "
                             f"Got {'None' if new is None else type(new).__name__}.")
        return new


def _as_leaf(leaf: Any, array: np.ndarray) -> Any:
    """An array as a leaf of this kind: a number, or an array of the same library and dtype."""
    return as_number(leaf, array[()]) if is_number(leaf) else like(leaf, array)
