"""State as other libraries keep it: given out in their form, and taken over from it, leaf by leaf by name.

Only what a formula keeps is moved, and only where the formula is one: `KEPT` says of each library which, and what it
calls the state.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fallline import rules
from fallline._arrays.dtypes import dtype_named, kept
from fallline._arrays.leaves import host
from fallline._arrays.trees import flatten, paths
from fallline._formula.chain import Chain
from fallline._formula.rule import Rule
from fallline._messages.values import brief
from fallline._optimizer.optimizer import Optimizer
from fallline.dialects.dialect import Dialect
from fallline.rules import dialects as own

__all__ = ["given", "taken"]

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
        own.torch_adafactor: _FACTORS, own.torch_adafactor_usual: _FACTORS,
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
# What a hyper-parameter must be for a formula to be one with that of a library, which has none such.
FIXED = {("torch", own.optax_adam): ("eps_root", 0), ("optax", own.torch_sgd): ("dampening", 0),
         ("optax", own.torch_nesterov): ("dampening", 0), ("optax", own.torch_rmsprop): ("momentum", 0),
         ("optax", own.torch_rmsprop_centered): ("momentum", 0),
         ("keras", own.torch_nadam): ("momentum_decay", 1)}  # fmt: skip
NEGATED = {("keras", own.trace)}  # whose momentum has the sign of the gradient
# Whose steps torch does not count.
COUNTLESS = (rules.sgd, own.torch_sgd, own.torch_nesterov, own.torch_muon, own.torch_muon_rms)


def given(optimizer: Optimizer, library: str) -> dict[str, Any]:
    """The state of a dialect as its library has it: what `Optimizer.state_dict(dialect=...)` gives."""
    called = _keys(optimizer, library)
    if not isinstance(optimizer, Dialect) or optimizer.title.split(".")[1] != library:
        raise ValueError(f"{optimizer._title} is no optimizer of {library}: load its state into one of "
                         f"fallline.dialects.{library}, whose settings go along.")
    return _GIVEN[library](optimizer, called)


def taken(optimizer: Optimizer, d: Any, library: str) -> dict[str, Any]:
    """A library's state as `Optimizer.load_state_dict` takes it, with the settings that the optimizer has, or those of
    the state if it is of that library."""
    called = _keys(optimizer, library)
    counts, found, settings = _TAKEN[library](optimizer, called, d)
    state, leaves = optimizer.state_dict(), _known(optimizer)
    names = list(leaves) if leaves else list(dict.fromkeys(path for arrays in found.values() for path in arrays))
    chain = optimizer._stepper.holders[""].chain
    shapes = {path: leaves[path] if leaves else _leaf(optimizer, called, found, path) for path in names}
    for slot, key in called.items() if names else ():
        unknown = [path for path in found.get(key or "", {}) if path not in shapes]
        lacking = [path for path in names if key is not None and path not in found[key]
                   and _is_there(chain, slot, shapes[path][0])]
        if unknown or lacking:
            raise ValueError(f"The leaves of the state are not those here: "
                             f"{'; '.join(_said('unexpected', unknown) + _said('missing', lacking))}.")
        arrays = {path: _array(optimizer, slot, shapes[path], found[key].get(path) if key else None) for path in names}
        negated = slot in _negated(optimizer, library)
        state["state"][slot] = {path: -array for path, array in arrays.items()} if negated else arrays
    state["t"] = max(counts.values(), default=optimizer.t)
    state["leaves"] = {path: {"shape": shape, "dtype": dtype, "t": counts.get(path, state["t"])}
                       for path, (shape, dtype) in shapes.items()} or None
    state["hyper"].update(settings)
    return state


def _said(word: str, names: list[str]) -> list[str]:
    return [f"{word} {', '.join(map(repr, names[:5]))}{' ...' * (len(names) > 5)}"] if names else []


def _keys(optimizer: Optimizer, library: str) -> dict[str, str | None]:
    """What the library calls each state slot of a chain; raises ValueError if it has no such formula."""
    if library not in KEPT:
        raise ValueError(f"dialect must be one of {', '.join(map(repr, KEPT))}. Got {library!r}.")
    holders = optimizer._stepper.holders
    if "" not in holders:
        raise ValueError(f"{optimizer._title} has parts: move the state of each, opt.parts[name].")
    chain, settings = holders[""].chain, holders[""].settings
    found: dict[str, str | None] = {}
    for name, rule in zip(chain.names, chain.rules):
        if rule.slots and rule not in KEPT[library]:
            raise ValueError(f"The state of {optimizer._title} cannot be {library}'s: {library} has no formula that is "
                             f"{rule.name}. See docs/dialects.md for whose is whose.")
        fixed, value = FIXED.get((library, rule), ("", 0))
        if fixed and settings[f"{name}.{fixed}"] != value:
            raise ValueError(f"The state of {optimizer._title} cannot be {library}'s, whose formula has no {fixed}: it "
                             f"must be {value}. Got {brief(settings[f'{name}.{fixed}'])}.")
        of_none = {"momentum_buffer"} if settings.get(f"{name}.momentum") == 0 else ()  # which torch has only with one
        found |= {chain.slots[name, slot]: None if key in of_none else key
                  for slot, key in KEPT[library].get(rule, {}).items()}
    return found


def _negated(optimizer: Optimizer, library: str) -> set[str]:
    """The state slots that the library has with the other sign."""
    chain = optimizer._stepper.holders[""].chain
    return {chain.slots[name, slot] for name, rule in zip(chain.names, chain.rules) if (library, rule) in NEGATED
            for slot in rule.slots}


def _known(optimizer: Optimizer) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of the leaves by path, in the order in which the caller's tree has them, if they are known."""
    states = optimizer._stepper.holders[""].states()
    if states is None:
        return {}
    group = optimizer._stepper.holders[""].group
    order = list(states.leaves)
    if group is not None:
        order = [group.paths[k] for k in _walked(group.treedef.unflatten(range(len(group.paths))))]
    return {path: (states.leaves[path].shape, states.leaves[path].dtype) for path in order}


def _walked(tree: Any) -> Iterator[int]:
    """The numbers in a tree in the order of its containers; optree sorts keys."""
    if isinstance(tree, Mapping):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        yield from () if tree is None else (tree,)
        return
    for below in tree:
        yield from _walked(below)


def _leaf(optimizer: Optimizer, called: Mapping[str, str | None], found: Mapping[str, Mapping[str, Any]], path: str
          ) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a leaf that is known by its state alone."""
    chain = optimizer._stepper.holders[""].chain
    for slot, key in called.items():
        if not (chain.rule.shapes or slot in chain.scopes()) and key is not None and found[key].get(path) is not None:
            array = np.asarray(host(found[key][path]))
            return array.shape, array.dtype.name
    raise ValueError(f"The shape of {path!r} is not known: call opt.adapt(params) before a state is loaded that has "
                     "nothing of its shape.")


def _is_there(chain: Chain, slot: str, leaf: tuple[int, ...]) -> bool:
    """Whether a leaf has any of a state slot that is not for leaves of all shapes."""
    return chain.shape(slot, leaf) == leaf or chain.shape(slot, leaf) != (0,)


def _array(optimizer: Optimizer, slot: str, leaf: tuple[tuple[int, ...], str], value: Any) -> np.ndarray:
    """State as it is kept here; None: as it starts."""
    shape, dtype = leaf
    value = _start(optimizer, slot) if value is None else value
    chain = optimizer._stepper.holders[""].chain
    if slot in chain.scopes():
        return np.array(host(value), np.float64).reshape(())
    return np.array(np.broadcast_to(host(value), chain.shape(slot, shape)), kept(dtype_named(dtype)))


def _now(optimizer: Dialect) -> dict[str, Any]:
    """The arguments of a dialect's library, with numbers as they are in the coming step."""
    settings = optimizer._stepper.holders[""].settings
    found: dict[str, Any] = dict(optimizer._flags)
    for name, hyper in optimizer._kept_in.items():
        values: list[Any] = [settings[q] if q else None for q in hyper]
        values = [value(optimizer.t) if callable(value) else value for value in values]
        if not all(value is None or isinstance(value, float) for value in values):
            raise ValueError(f"{name} of {optimizer.title} differs by leaf, and is one number there.")
        if isinstance(optimizer.arguments.parameters[name].default, int) and values[0].is_integer():
            values = [int(values[0])]  # such as of steps, which torch counts by range
        found[name] = tuple(values) if len(values) > 1 else values[0]
    return found


def _counted_once(optimizer: Optimizer, d: Mapping[str, Any]) -> None:
    """Refuse leaves that have had fewer steps than others, where a formula asks how many: there is one count there."""
    fewer = [path for path, leaf in (d["leaves"] or {}).items() if leaf["t"] != optimizer.t]
    if fewer and any("t" in rule.given for rule in optimizer._stepper.holders[""].chain.rules):
        raise ValueError(f"{fewer[0]!r} has had {d['leaves'][fewer[0]]['t']} steps and {optimizer._title} "
                         f"{optimizer.t}: its library has one count for all leaves.")


# ---- torch -----------------------------------------------------------------------------------------------------------


def _to_torch(optimizer: Dialect, called: Mapping[str, str | None]) -> dict[str, Any]:
    torch = importlib.import_module("torch")
    d, chain = optimizer.state_dict(), optimizer._stepper.holders[""].chain
    state: dict[int, dict[str, Any]] = {}
    names = list(_known(optimizer))
    for k, path in enumerate(names):
        t = d["leaves"][path]["t"]
        kept_there = {key: torch.tensor(d["state"][slot][path]) for slot, key in called.items()
                      if key and _is_there(chain, slot, d["leaves"][path]["shape"])}
        if chain.rule is own.torch_asgd:
            kept_there["mu"] = torch.tensor(1 / max(1.0, t - float(_now(optimizer)["t0"])))
        steps = {} if chain.rule in COUNTLESS else {"step": torch.tensor(float(t))}
        if t and (kept_there or steps):
            state[k] = {**steps, **kept_there}
    group = {**_now(optimizer), "params": list(range(len(names))), "param_names": names}
    return {"state": state, "param_groups": [group]}


def _from_torch(optimizer: Optimizer, called: Mapping[str, str | None], d: Any) -> tuple[dict[str, int], Any, Any]:
    if not isinstance(d, Mapping) or not {"state", "param_groups"} <= set(d):
        raise ValueError(f"A state of torch is a dict with state and param_groups. Got {brief(d)}.")
    ids = [k for group in d["param_groups"] for k in group["params"]]
    names = [name for group in d["param_groups"] for name in group.get("param_names", ())]
    if not names:
        names = ids if all(isinstance(k, str) for k in ids) else list(_known(optimizer))
    if len(names) != len(ids):
        raise ValueError("The state of torch has no names of its parameters, and here are "
                         f"{len(names)} leaves for {len(ids)}: make torch's optimizer of model.named_parameters().")
    counts, shaped = dict[str, int](), optimizer._stepper.holders[""].chain.rule.shapes
    found: dict[str, dict[str, Any]] = {key: {} for key in called.values() if key}
    for k, name in zip(ids, names):
        its = d["state"].get(k, {})
        counts[name] = int(its.get("step", max(1, optimizer.t) if its else 0))
        for slot, key in called.items():
            if its and key and key not in its and slot not in shaped:
                raise ValueError(f"The state of {name!r} in torch lacks {key}: it has {', '.join(its)}.")
            if key and (key in its or not its):
                found[key][name] = its.get(key)
    return counts, found, _settings(optimizer, "torch", d["param_groups"])


def _start(optimizer: Optimizer, slot: str) -> float:
    """Where a slot starts, of a leaf that has had no gradient."""
    holder = optimizer._stepper.holders[""]
    start = holder.chain.starts()[slot]
    value = holder.settings[start] if isinstance(start, str) else start
    return float(value) if isinstance(value, float) else 0.0


def _settings(optimizer: Optimizer, library: str, groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The hyper-parameters of a state, if the optimizer is of that library; of groups that must agree."""
    if not isinstance(optimizer, Dialect) or optimizer.title.split(".")[1] != library:
        return {}
    found: dict[str, float] = {}
    for group in groups:
        for name, hyper in optimizer._kept_in.items():
            if name in group:
                values = group[name] if isinstance(group[name], (tuple, list)) else (group[name],)
                for q, value in zip(hyper, values):
                    if (q is None) != (value is None):
                        raise ValueError(f"{name} of {optimizer.title} chooses another formula: make it with {name}="
                                         f"{brief(group[name])}, as the state has it.")
                    if q is not None and found.setdefault(q, float(value)) != float(value):
                        raise ValueError(f"{name} differs by group in the state, {found[q]:g} and {float(value):g}: "
                                         "take over one group at a time, as parts of a fallline.partition.")
    return found


# ---- Keras -----------------------------------------------------------------------------------------------------------


def _to_keras(optimizer: Dialect, called: Mapping[str, str | None]) -> dict[str, Any]:
    d = optimizer.state_dict()
    _counted_once(optimizer, d)
    negated = _negated(optimizer, "keras")
    arrays = {PRODUCT if key == PRODUCT else f"{path.replace('/', '_')}_{key}": -array if slot in negated else array
              for slot, key in called.items() for path, array in d["state"].get(slot, {}).items()}
    return {"iteration": optimizer.t, "learning_rate": _now(optimizer)["learning_rate"], **arrays}


def _from_keras(optimizer: Optimizer, called: Mapping[str, str | None], d: Any) -> tuple[dict[str, int], Any, Any]:
    short = {str(name).rpartition("/")[2]: value for name, value in d.items()} if isinstance(d, Mapping) else {}
    if "iteration" not in short:
        raise ValueError("A state of Keras is a dict of the arrays of optimizer.variables by their path, with that of "
                         f"its iteration. Got {brief(d)}.")
    t, found = int(host(short["iteration"])), dict[str, dict[str, Any]]()
    written = {path.replace("/", "_"): path for path in _known(optimizer)}
    for key in filter(None, called.values()):
        ends = {name.removesuffix(f"_{key}"): value for name, value in short.items() if name.endswith(f"_{key}")}
        found[key] = {written.get(name, name): value for name, value in ends.items()}
        if key == PRODUCT:
            its = [value for name, value in short.items() if re.fullmatch(rf"{PRODUCT}|variable(_\d+)?", name)]
            found[key] = {path: value for value in its for path in found["momentum"]}
        if not found[key]:
            raise ValueError(f"The state of Keras lacks {key}: it has {', '.join(short)}.")
    every = [path for arrays in found.values() for path in arrays]
    return dict.fromkeys(every, t), found, _settings(optimizer, "keras", [short])


# ---- optax -----------------------------------------------------------------------------------------------------------


def _to_optax(optimizer: Dialect, called: Mapping[str, str | None]) -> dict[str, Any]:
    group, d = optimizer._stepper.holders[""].group, optimizer.state_dict()
    _counted_once(optimizer, d)

    def tree(arrays: Mapping[str, Any]) -> Any:
        return dict(arrays) if group is None else group.treedef.unflatten([arrays[path] for path in group.paths])

    trees = {key: tree(d["state"][slot]) for slot, key in called.items() if key and slot in d["state"]}
    return {"count": np.array(optimizer.t, np.int32), **trees}


def _from_optax(optimizer: Optimizer, called: Mapping[str, str | None], d: Any) -> tuple[dict[str, int], Any, Any]:
    fields = dict(d) if isinstance(d, Mapping) else _fields(d, {})
    found = {}
    for key in filter(None, called.values()):
        if key not in fields:
            raise ValueError(f"The state of optax lacks {key}: it has {', '.join(fields) or 'no fields'}.")
        leaves, treedef = flatten(fields[key])
        found[key] = dict(zip(paths(treedef), leaves))
    every = [path for arrays in found.values() for path in arrays]
    t = int(host(fields["count"])) if "count" in fields else max(1, optimizer.t)
    return dict.fromkeys(every, t), found, {}


def _fields(state: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of all named tuples in optax' nested state; of one name the first."""
    if hasattr(state, "_fields"):
        found = {**state._asdict(), **found}
    for below in state if isinstance(state, tuple) else ():
        found = _fields(below, found)
    return found


_GIVEN: dict[str, Callable[..., dict[str, Any]]] = {"torch": _to_torch, "keras": _to_keras, "optax": _to_optax}
_TAKEN: dict[str, Callable[..., tuple[dict[str, int], Any, Any]]] = {
    "torch": _from_torch, "keras": _from_keras, "optax": _from_optax}  # fmt: skip
