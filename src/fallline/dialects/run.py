"""A run as another library has it: which formulas are one with that library's, and what it calls their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fallline import rules
from fallline._arrays.containers import is_container, parted_once
from fallline._arrays.dtypes import LACKED, dtype_named, kept
from fallline._arrays.leaves import host
from fallline._formula.rule import Rule
from fallline._formula.settings import ByPath, resolve
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline.dialects.dialect import Dialect
from fallline.rules import dialects as own

__all__ = ["KEPT", "PRODUCT", "Found", "Run", "number", "whole"]

_MOMENTS: dict[str, str | None] = {"m": "exp_avg", "v": "exp_avg_sq"}
_FACTORS: dict[str, str | None] = {"v": "variance", "row": "row_var", "col": "col_var"}
_FTRL: dict[str, str | None] = {"n": "accumulator", "z": "linear"}
_MU: dict[str, str | None] = {"m": "mu", "v": "nu"}
PRODUCT = "u_product"  # of Keras' Nadam: one for all leaves, in a variable that has no name of its own
KEPT: dict[str, dict[Rule, dict[str, str | None]]] = {  # None: of no account, as what it is multiplied by is 0
    "torch": {
        rules.sgd: {}, own.torch_sgd: {"b": "momentum_buffer"}, own.torch_nesterov: {"b": "momentum_buffer"},
        own.torch_asgd: {"ax": "ax", "rate": "eta"}, own.torch_adagrad: {"s": "sum"},
        own.torch_adadelta: {"v": "square_avg", "u": "acc_delta"}, rules.rprop: {"last": "prev", "rate": "step_size"},
        own.torch_rmsprop: {"v": "square_avg", "b": "momentum_buffer"},
        own.torch_rmsprop_centered: {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"},
        own.torch_adam: _MOMENTS, own.optax_adam: _MOMENTS, own.torch_radam: _MOMENTS,
        own.torch_amsgrad: {**_MOMENTS, "v_max": "max_exp_avg_sq"},
        own.torch_adamax: {"m": "exp_avg", "u": "exp_inf"}, own.torch_nadam: {**_MOMENTS, "product": "mu_product"},
        own.averaged: {"m": "momentum_buffer"}, own.averaged_ahead: {"m": "momentum_buffer"},
        own.torch_muon: {}, own.torch_muon_rms: {}, own.torch_adafactor: _FACTORS, own.torch_adafactor_usual: _FACTORS,
    },
    "keras": {
        rules.sgd: {}, rules.momentum: {"velocity": "momentum"}, rules.nesterov: {"velocity": "momentum"},
        own.keras_adagrad: {"s": "accumulator"}, own.keras_rmsprop: {"v": "velocity"},
        own.keras_rmsprop_centered: {"v": "velocity", "a": "average_gradient"}, own.trace: {"b": "momentum"},
        own.torch_adadelta: {"v": "accumulated_grad", "u": "accumulated_delta_var"},
        own.keras_adam: {"m": "momentum", "v": "velocity"}, own.keras_lamb: {"m": "momentum", "v": "velocity"},
        own.keras_amsgrad: {"m": "momentum", "v": "velocity", "v_max": "velocity_hat"},
        own.keras_adamax: {"m": "momentum", "u": "norm"}, own.keras_ftrl: _FTRL, own.keras_ftrl_power: _FTRL,
        own.torch_nadam: {"m": "momentum", "v": "velocity", "product": PRODUCT}, rules.lion: {"m": "momentum"},
    },
    "optax": {
        rules.sgd: {}, own.torch_sgd: {"b": "trace"}, own.torch_nesterov: {"b": "trace"},
        own.keras_adagrad: {"s": "sum_of_squares"}, own.torch_adadelta: {"v": "e_g", "u": "e_x"},
        own.keras_rmsprop: {"v": "nu"}, own.keras_rmsprop_centered: {"v": "nu", "a": "mu"},
        own.torch_rmsprop: {"v": "nu", "b": None}, own.torch_rmsprop_centered: {"v": "nu", "a": "mu", "b": None},
        own.trace: {"b": "trace"}, own.nesterov_trace: {"b": "trace"}, own.torch_adam: _MU, own.optax_adam: _MU,
        own.optax_nadam: _MU, own.optax_amsgrad: {**_MU, "v_max": "nu_max"}, own.optax_radam: _MU, own.optax_yogi: _MU,
        own.torch_adamax: {"m": "mu", "u": "nu"}, own.optax_lamb: _MU, own.optax_adabelief: {"m": "mu", "s": "nu"},
        own.optax_novograd: _MU, rules.lion: {"m": "mu"},
    },
}  # fmt: skip
# One formula by two names; and the hyper-parameter whose value makes another formula of one, or none of a library's.
SAME: dict[Rule, Rule] = {own.optax_adam: own.torch_adam}
TELLING = {own.optax_adam: "eps_root", own.torch_sgd: "dampening", own.torch_nesterov: "dampening",
           own.torch_rmsprop: "momentum", own.torch_rmsprop_centered: "momentum",
           own.torch_nadam: "momentum_decay"}  # fmt: skip
FIXED = {("torch", own.optax_adam): 0, ("optax", own.torch_sgd): 0, ("optax", own.torch_nesterov): 0,
         ("optax", own.torch_rmsprop): 0, ("optax", own.torch_rmsprop_centered): 0,
         ("keras", own.torch_nadam): 1}  # fmt: skip
NEGATED = {("keras", own.trace)}  # whose momentum has the sign of the gradient
MODIFIERS = {rules.l2: "rate", rules.weight_decay: "rate", rules.maximize: ""}  # which libraries' optimizers have


class Found(NamedTuple):
    """What another library's state says: arrays by the library's names and by leaf, None where they are as they start;
    the steps of leaves, and of all if that is known; settings by "rule.name", one for all or by leaf."""

    arrays: dict[str, dict[str, Any]]
    counts: dict[str, int]
    t: int | None
    settings: dict[str, Any]


class Run:
    """An optimizer with what a library calls its state, by slot; raises ValueError if it has no such formula."""

    def __init__(self, optimizer: Optimizer, library: str) -> None:
        if not (isinstance(library, str) and library in KEPT):
            raise ValueError(f"dialect must be one of {', '.join(map(repr, KEPT))}. Got {library!r}.")
        holders = optimizer._stepper.holders
        if "" not in holders:
            raise ValueError(f"{optimizer._title} has parts, which no other library has: use one optimizer with "
                             "settings by leaf, such as weight_decay=fallline.by_path(lambda path: ...).")
        self.optimizer, self.library, self.title = optimizer, library, optimizer._title
        self.holder = holders[""]
        self.chain, self.settings = self.holder.chain, self.holder.settings
        self.called: dict[str, str | None] = {}
        self.negated: set[str] = set()
        for name, rule in zip(self.chain.names, self.chain.rules):
            if (rule.slots or rule.kind == "rule") and rule not in KEPT[library]:
                raise ValueError(f"The state of {self.title} cannot be {library}'s: {library} has no formula that is "
                                 f"{rule.name}. See docs/dialects.md for which formula is whose.")
            if (library, rule) in FIXED:
                self._check_fixed(f"{name}.{TELLING[rule]}", FIXED[library, rule])
            slots = {self.chain.slots[name, slot]: key for slot, key in KEPT[library].get(rule, {}).items()}
            self.called |= slots
            self.negated |= set(slots) if (library, rule) in NEGATED else set()

    def _check_fixed(self, q: str, value: float) -> None:
        if not np.all(np.equal(self.settings[q], value) if not callable(self.settings[q]) else False):
            raise ValueError(f"The state of {self.title} cannot be {self.library}'s, whose formula has no "
                             f"{self.chain.hyper[q].name}: it must be {value}. Got {brief(self.settings[q])}.")

    @property
    def is_own(self) -> bool:
        """Whether it is a dialect of the library."""
        return isinstance(self.optimizer, Dialect) and self.optimizer.title.split(".")[1] == self.library

    def formula(self, moved: Mapping[str, Any]) -> tuple[list[tuple[Rule, Any]], set[str]]:
        """What it computes, with these settings in the place of its own: its rules that keep state, each with the value
        that makes a formula of its own, and the modifiers of libraries."""
        settings = {**self.settings, **moved}
        named = [(name, rule) for name, rule in zip(self.chain.names, self.chain.rules)]
        stateful = [(SAME.get(rule, rule), settings[f"{name}.{TELLING[rule]}"] if rule in TELLING else 0.0)
                    for name, rule in named if rule.slots or rule.kind == "rule"]
        return stateful, {rule.name for name, rule in named if rule in MODIFIERS and (
            not MODIFIERS[rule] or not np.all(np.equal(settings[f"{name}.{MODIFIERS[rule]}"], 0)))}

    def leaves(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of the leaves by path, in the order of the caller's tree, if they are known."""
        states, group = self.holder.states(), self.holder.group
        if states is None:
            return {}
        order = list(states.leaves)
        if group is not None:
            order = [group.paths[k] for k in _walked(group.treedef.unflatten(range(len(group.paths))))]
        return {path: (states.leaves[path].shape, states.leaves[path].dtype) for path in order}

    def is_there(self, slot: str, leaf: tuple[int, ...]) -> bool:
        """Whether a leaf has any of a state slot that is not for leaves of all shapes."""
        return self.chain.shape(slot, leaf) == leaf or self.chain.shape(slot, leaf) != (0,)

    def values(self, q: str) -> dict[str, float]:
        """A hyper-parameter's number in the coming step, by leaf; of none by ""."""
        paths, setting, group = list(self.leaves()) or [""], self.settings[q], self.holder.group
        if isinstance(setting, ByPath):
            found = [setting.function(path) for path in paths]
        elif is_container(setting) and group is not None:
            by_leaf = resolve(self.chain.hyper[q], setting, self.title, group.treedef, group.shapes, "")
            at = dict(zip(group.paths, by_leaf))
            found = [at[path] for path in paths]
        elif isinstance(setting, dict) and {*setting} == {*paths}:
            found = [setting[path] for path in paths]
        else:
            found = [setting] * len(paths)
        return {path: number(value(self.optimizer.t) if callable(value) else value,
                             f"{self.chain.hyper[q].name} of {self.title}, to be moved, must be one number for a leaf")
                for path, value in zip(paths, found)}

    def check_counts(self, d: Mapping[str, Any]) -> None:
        """Refuse leaves that have had fewer steps than others, where a formula asks how many there were: libraries with
        one count for all cannot have them. `d` is the state dictionary."""
        leaves = d["leaves"] or {}
        fewer = [path for path, leaf in leaves.items() if leaf["t"] != self.optimizer.t]
        if fewer and any("t" in rule.given for rule in self.chain.rules):
            raise ValueError(f"{fewer[0]!r} has had {leaves[fewer[0]]['t']} steps and {self.title} {self.optimizer.t}: "
                             f"{self.library} has one count for all leaves.")

    def array(self, slot: str, path: str, leaf: tuple[tuple[int, ...], str], value: Any) -> np.ndarray:
        """State as it is kept here; None: as it starts."""
        shape, dtype = self.chain.shape(slot, leaf[0]), kept(dtype_named(leaf[1]))
        if slot in self.chain.scopes():
            shape, dtype = (), np.dtype(np.float64)
        if value is None:
            start = self.chain.starts()[slot]
            start = self.settings[start] if isinstance(start, str) else start
            return np.full(shape, start if isinstance(start, float) else 0.0, dtype)
        array = np.asarray(host(value))
        if array.dtype.kind not in "fiuc" and array.dtype.name not in LACKED:
            raise TypeError(f"{self.called[slot]} of {path!r} in the state must be an array of numbers. "
                            f"Got {array.dtype}.")
        if array.shape != shape and not array.size == 1 == np.prod(shape):
            raise ValueError(f"{self.called[slot]} of {path!r} in the state has the shape {array.shape}, and here it "
                             f"is {shape}.")
        return array.astype(dtype).reshape(shape)

    def leaf(self, found: Found, path: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a leaf that is known by its state alone."""
        for slot, key in self.called.items():
            whole = not (self.chain.rule.shapes or slot in self.chain.scopes())
            if whole and key is not None and found.arrays[key].get(path) is not None:
                array = np.asarray(host(found.arrays[key][path]))
                return array.shape, array.dtype.name
        raise ValueError(f"The shape of {path!r} is not known: call opt.adapt(params) before a state is loaded that "
                         "has nothing of its shape.")


def number(value: Any, demand: str) -> float:
    """A number of any library as a float; else a TypeError with the demand."""
    try:
        array = np.asarray(host(value)) if hasattr(value, "shape") else np.asarray(value)
        if array.shape == () and array.dtype.kind in "fiu":
            return float(array)
    except Exception:  # of whatever library
        pass
    raise TypeError(f"{demand}. Got {brief(value)}.")


def whole(value: Any, what: str) -> int:
    """A count of any library; raises TypeError or ValueError for what is none."""
    found = number(value, f"{what} of the state must be a whole number ≥ 0")
    if not (found >= 0 and found == np.floor(found) < np.inf):
        raise ValueError(f"{what} of the state must be a whole number ≥ 0. Got {found:g}.")
    return int(found)


def _walked(tree: Any) -> Iterator[int]:
    """The numbers in a tree in the order of its containers; optree sorts keys."""
    if not is_container(tree):
        yield from () if tree is None else (tree,)
        return
    for below in tree.values() if isinstance(tree, Mapping) else parted_once(tree)[0]:
        yield from _walked(below)
