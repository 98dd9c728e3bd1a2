"""The forms in which torch, Keras and optax keep the state of a run: read, checked by what they say, and written."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fallline import rules
from fallline._arrays.trees import flatten, paths
from fallline._formula.rule import Rule
from fallline._messages.values import brief
from fallline.dialects import every
from fallline.dialects.dialect import Dialect
from fallline.dialects.run import PRODUCT, Found, Run, number, whole
from fallline.rules import dialects as own

__all__ = ["READ", "WRITTEN"]

# ---- torch -----------------------------------------------------------------------------------------------------------

UNCOUNTED = (rules.sgd, own.torch_sgd, own.torch_nesterov, own.torch_muon, own.torch_muon_rms)
EXECUTION = {"foreach", "fused", "capturable", "differentiable"}


def to_torch(run: Run) -> dict[str, Any]:
    """What `torch.optim.Optimizer.load_state_dict` takes, which goes by the order of parameters."""
    optimizer, leaves = run.optimizer, run.leaves()
    if not (isinstance(optimizer, Dialect) and run.is_own):
        raise ValueError(f"torch's state includes all settings of an optimizer, but {run.title} is not in "
                         "fallline.dialects.torch: make one of these and load the state into it, "
                         'other.load_state_dict(opt.state_dict(dialect="optax"), dialect="optax").')
    if len(leaves) > 1 and run.holder.group is None:
        raise ValueError("torch goes by the order of parameters, which is not known here: call opt.adapt(params) with "
                         "a tree in the order of the model's, such as dict(model.named_parameters()).")
    torch, d = importlib.import_module("torch"), optimizer.state_dict()
    groups: dict[tuple[Any, ...], list[str]] = {}
    arguments = _arguments(run)
    for path in leaves or ():
        groups.setdefault(tuple(values[path] for values in arguments.values()), []).append(path)
    if not groups:
        groups[tuple(values[""] for values in arguments.values())] = []
    state: dict[int, dict[str, Any]] = {}
    param_groups, k = list[dict[str, Any]](), 0
    for values, names in groups.items():
        group = {**optimizer._flags, **dict(zip(arguments, values))}
        param_groups.append({**group, "params": list(range(k, k + len(names))), "param_names": names})
        for path in names:
            its = _its(run, d, path, group, torch)
            state |= {k: its} if its else {}
            k += 1
    return {"state": state, "param_groups": param_groups}


def _its(run: Run, d: Mapping[str, Any], path: str, group: Mapping[str, Any], torch: Any) -> dict[str, Any]:
    """The state of a leaf; none if it has had no gradient."""
    t, shape = d["leaves"][path]["t"], d["leaves"][path]["shape"]
    steps = {} if run.chain.rule in UNCOUNTED else {"step": torch.tensor(float(t))}
    arrays = {key: torch.tensor(d["state"][slot][path]) for slot, key in run.called.items()
              if key and run.is_there(slot, shape) and not (key == "momentum_buffer" and group["momentum"] == 0)}
    if run.chain.rule is own.torch_asgd:
        arrays["mu"] = torch.tensor(1 / max(1.0, t - group["t0"]))
    return {**steps, **arrays} if t else {}


def _arguments(run: Run) -> dict[str, dict[str, Any]]:
    """The library's arguments that are hyper-parameters here, by leaf, as they are in the coming step."""
    optimizer = run.optimizer
    assert isinstance(optimizer, Dialect)
    found: dict[str, dict[str, Any]] = {}
    for name, hyper in optimizer._kept_in.items():
        parts = [run.values(q) if q else None for q in hyper]
        leaves = next(part for part in parts if part is not None)
        if isinstance(optimizer.arguments.parameters[name].default, tuple):
            found[name] = {path: tuple(part[path] if part else None for part in parts) for path in leaves}
        else:  # in whole numbers, such as of steps, which torch counts by range, where torch has them so
            is_whole = isinstance(optimizer.arguments.parameters[name].default, int)
            found[name] = {path: int(v) if is_whole and v.is_integer() else v for path, v in leaves.items()}
    return found


def from_torch(run: Run, d: Any) -> Found:
    """What `torch.optim.Optimizer.state_dict` gave."""
    if not (isinstance(d, Mapping) and isinstance(d.get("state"), Mapping) and isinstance(d.get("param_groups"), list)
            and all(isinstance(g, Mapping) and isinstance(g.get("params"), list) for g in d["param_groups"])):
        raise ValueError(f"A state of torch is a dict with state and param_groups, each of these with params. "
                         f"Got {brief(d)}.")
    names = iter(_names(run, d["param_groups"]))
    shaped = run.chain.rule.shapes
    arrays: dict[str, dict[str, Any]] = {key: {} for key in run.called.values() if key}
    counts, settings = dict[str, int](), dict[str, dict[str, Any]]()
    for group in d["param_groups"]:
        moved = _moved(run, group)
        for k in group["params"]:
            name, its = next(names), d["state"].get(k) or {}
            if not isinstance(its, Mapping):
                raise ValueError(f"The state of {name!r} in torch must be a dict. Got {brief(its)}.")
            counts[name] = whole(its["step"], f"step of {name!r}") if "step" in its else max(
                1, run.optimizer.t) if its else 0
            for q, value in moved.items():
                settings.setdefault(q, {})[name] = value
            for slot, key in run.called.items():
                unused = key == "momentum_buffer" and group.get("momentum") == 0
                if its and key and key not in its and slot not in shaped and not unused:
                    raise ValueError(f"The state of {name!r} in torch lacks {key}: it has {', '.join(its)}.")
                if key and (key in its or not its or unused):
                    arrays[key][name] = its.get(key)
    return Found(arrays, counts, None, {q: _by_leaf(run, values) for q, values in settings.items()})


def _names(run: Run, groups: list[Mapping[str, Any]]) -> list[str]:
    """What the parameters are called here, in the order of the groups."""
    ids = [k for group in groups for k in group["params"]]
    names = [name for group in groups for name in group.get("param_names") or ()]
    known = list(run.leaves())
    if not names:
        names = ids if all(isinstance(k, str) for k in ids) else known
    if len(names) != len(ids):
        raise ValueError(f"The state of torch has no parameter names, so its {len(ids)} parameters cannot be matched "
                         f"with {len(names)} leaves here: make torch's optimizer with model.named_parameters().")
    dotted = {re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), path).replace("/", "."): path for path in known}
    return [name if name in known else dotted.get(name, name) for name in names]


def _moved(run: Run, group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that go along, once it is sure that the formula of a group's settings is this one's."""
    theirs = _optimizer_of(run, group)
    if theirs is None:
        return {}
    moved: dict[str, Any] = {}
    if run.is_own and isinstance(run.optimizer, Dialect):
        for name, hyper in run.optimizer._kept_in.items():
            of_theirs = theirs._kept_in.get(name) or [None] * len(hyper)
            for k, (q, other) in enumerate(zip(hyper, of_theirs)):
                flag = theirs._flags.get(name)
                if q and not callable(run.settings[q]):  # a schedule stays
                    moved[q] = (theirs._stepper.holders[""].settings[other] if other else
                                flag[k] if isinstance(flag, list) else flag)
    (ours, mine), (stateful, modifiers) = run.formula(moved), Run(theirs, "torch").formula({})
    missing = modifiers - {rule.name for rule in run.chain.rules}
    if ours != stateful or missing or ("maximize" in mine) != ("maximize" in modifiers):
        raise ValueError(f"The state is of {theirs!r}, but {run.optimizer!r} has another formula: load it into an "
                         "optimizer with the same formula.")
    return moved


def _optimizer_of(run: Run, group: Mapping[str, Any]) -> Dialect | None:
    """The dialect of a group's settings; None if there are none. What it lacks, as of an older torch, is as here."""
    its = {*group} - {"params", "param_names", "initial_lr"} - EXECUTION
    classes = {title: {*cls.arguments.parameters} - EXECUTION for title, cls in every().items() if ".torch." in title}
    known = {name for names in classes.values() for name in names}
    if not its:
        return None

    def likeness(title: str) -> int:
        own_names = classes[title]
        return len(own_names & its) - len(own_names - its) - len((its & known) - own_names)

    title = max(classes, key=likeness)
    if "lr" not in its or likeness(title) < 1:
        raise ValueError(f"No dialect of torch.optim has the settings {', '.join(sorted(its))} of the state.")
    if run.is_own and isinstance(run.optimizer, Dialect) and likeness(run.title) == likeness(title):
        title = run.title
    if title in ("dialects.torch.Adam", "dialects.torch.AdamW"):  # which differ by that alone
        here = run.is_own and "weight_decay" in run.chain.names
        title = f"dialects.torch.Adam{'W' if group.get('decoupled_weight_decay', here) else ''}"
    arguments = {name: tuple(value) if isinstance(value, (tuple, list)) else
                 number(value, f"{name} of the state must be a number") if hasattr(value, "shape") else value
                 for name, value in group.items() if name in classes[title]}
    return every()[title](**arguments)


def _by_leaf(run: Run, values: dict[str, Any]) -> Any:
    """One setting for all leaves, or a tree of them where they differ."""
    first = next(iter(values.values()))
    if all(value == first for value in values.values()):
        return first
    group = run.holder.group
    return values if group is None else group.treedef.unflatten([values[path] for path in group.paths])


# ---- Keras -----------------------------------------------------------------------------------------------------------

# By the name of an optimizer with which paths of its variables begin, rm_sprop_3/w_momentum, without _ and number.
NAMED: dict[str, tuple[Rule, ...]] = {
    "sgd": (rules.sgd, rules.momentum, rules.nesterov), "adam": (own.keras_adam, own.keras_amsgrad),
    "adamw": (own.keras_adam, own.keras_amsgrad), "rmsprop": (own.keras_rmsprop, own.keras_rmsprop_centered),
    "adagrad": (own.keras_adagrad,), "adadelta": (own.torch_adadelta,), "adamax": (own.keras_adamax,),
    "nadam": (own.torch_nadam,), "ftrl": (own.keras_ftrl, own.keras_ftrl_power), "lion": (rules.lion,),
    "lamb": (own.keras_lamb,),
}  # fmt: skip


def to_keras(run: Run) -> dict[str, Any]:
    """Arrays by the last part of the path that they have in `optimizer.variables`."""
    d, written = run.optimizer.state_dict(), _written(run)
    run.check_counts(d)
    if len({*written.values()}) < len(written):
        raise ValueError("Keras would call two leaves by one name: "
                         f"{', '.join(repr(p) for p in written if [*written.values()].count(written[p]) > 1)}.")
    arrays = {PRODUCT if key == PRODUCT else f"{written[path]}_{key}": -array if slot in run.negated else array
              for slot, key in run.called.items() for path, array in d["state"].get(slot, {}).items()}
    rate = {*run.values(f"{run.chain.rule_name}.lr").values()}
    if len(rate) > 1:
        raise ValueError(f"lr of {run.title} differs by leaf, and is one number in Keras.")
    return {"iteration": run.optimizer.t, "learning_rate": rate.pop(), **arrays}


def _written(run: Run) -> dict[str, str]:
    """What Keras calls the variables of leaves."""
    return {path: path.replace("%2F", "/").replace("/", "_") for path in run.leaves()}


def from_keras(run: Run, d: Any) -> Found:
    """Arrays by the paths that they have in `optimizer.variables`."""
    short = {str(name).rpartition("/")[2]: value for name, value in d.items()} if isinstance(d, Mapping) else {}
    if "iteration" not in short:
        raise ValueError("A state of Keras is a dict of the arrays of optimizer.variables by their path, with that of "
                         f"its iteration. Got {brief(d)}.")
    kinds = {re.sub(r"_\d+$|_", "", str(name).partition("/")[0]) for name in d if "/" in str(name)} & {*NAMED}
    if kinds and not any(run.chain.rule in NAMED[kind] for kind in kinds):
        raise ValueError(f"The state is of Keras' {' and '.join(sorted(kinds))}, another formula than {run.title}'s, "
                         f"{run.chain.rule.name}.")
    t, arrays = whole(short.pop("iteration"), "iteration"), dict[str, dict[str, Any]]()
    rate = short.pop("learning_rate", None)
    leaves = {name: path for path, name in _written(run).items()}
    for key in sorted(filter(None, run.called.values()), key=len, reverse=True):  # velocity_hat before velocity
        is_product = key == PRODUCT
        own_names = [name for name in short if (
            re.fullmatch(rf"{PRODUCT}|variable(_\d+)?", name) if is_product else name.endswith(f"_{key}"))]
        values = {name.removesuffix(f"_{key}"): short.pop(name) for name in own_names}
        if not values and t:
            raise ValueError(f"The state of Keras lacks {key}: it has {', '.join(map(str, d))}.")
        by_order = leaves and not {*values} & {*leaves} and all(re.fullmatch(r"\d+", p) for p in leaves.values())
        arrays[key] = (dict(zip(leaves.values(), values.values())) if by_order and len(values) == len(leaves) else
                       {leaves.get(name, name): value for name, value in values.items()})
    if PRODUCT in arrays:
        arrays[PRODUCT] = {path: value for value in arrays[PRODUCT].values() for path in arrays["momentum"]}
    if short:
        raise ValueError(f"The state of Keras has {', '.join(short)}, and {run.title} has no such state: it is of "
                         "another formula.")
    q = f"{run.chain.rule_name}.lr"
    moves = rate is not None and run.is_own and not callable(run.settings[q])
    every_path = [path for its in arrays.values() for path in its]
    return Found(arrays, dict.fromkeys(every_path, t), t,
                 {q: number(rate, "learning_rate of the state must be a number")} if moves else {})


# ---- optax -----------------------------------------------------------------------------------------------------------

OF_OPTAX = {  # the state of its transformations that keep any, by the type's name
    own.torch_sgd: "TraceState", own.torch_nesterov: "TraceState", own.trace: "TraceState",
    own.nesterov_trace: "TraceState", own.keras_adagrad: "ScaleByRssState", own.torch_adadelta: "ScaleByAdaDeltaState",
    own.keras_rmsprop: "ScaleByRmsState", own.torch_rmsprop: "ScaleByRmsState",
    own.keras_rmsprop_centered: "ScaleByRStdDevState", own.torch_rmsprop_centered: "ScaleByRStdDevState",
    own.optax_amsgrad: "ScaleByAmsgradState", rules.lion: "ScaleByLionState",
    own.optax_adabelief: "ScaleByBeliefState", own.optax_novograd: "ScaleByNovogradState",
    **dict.fromkeys((own.torch_adam, own.optax_adam, own.optax_nadam, own.optax_radam, own.optax_yogi,
                     own.torch_adamax, own.optax_lamb), "ScaleByAdamState"),
}  # fmt: skip
UNCOUNTED_THERE = {"TraceState", "ScaleByRssState", "ScaleByAdaDeltaState", "ScaleByRmsState", "ScaleByRStdDevState"}
OUTSIDE = {"count", "hyperparams", "hyperparams_states", "inner_state", "notfinite_count", "last_finite",
           "total_notfinite"}  # fmt: skip  (fields that are of no formula)


def to_optax(run: Run) -> dict[str, Any]:
    """Fields of a state, for `optax.tree.set`; the count where optax has one."""
    group, d = run.holder.group, run.optimizer.state_dict()
    run.check_counts(d)

    def tree(arrays: Mapping[str, Any]) -> Any:
        return dict(arrays) if group is None else group.treedef.unflatten([arrays[path] for path in group.paths])

    fields = {key: tree(d["state"][slot]) for slot, key in run.called.items() if key and slot in d["state"]}
    is_counted = any(kind not in UNCOUNTED_THERE for kind in _kinds(run)) or callable(
        run.settings[f"{run.chain.rule_name}.lr"])
    return {**({"count": np.array(run.optimizer.t, np.int32)} if is_counted else {}), **fields}


def _kinds(run: Run) -> list[str]:
    return sorted(OF_OPTAX[rule] for rule in run.chain.rules if rule in OF_OPTAX)


def from_optax(run: Run, d: Any) -> Found:
    """A state of optax, however deep its parts lie, or a dict of the fields."""
    keys = [key for key in run.called.values() if key]
    if isinstance(d, Mapping):
        fields, kinds, named = dict(d), _kinds(run), {*d} - {"count"} - {*keys}
    else:
        fields, kinds, named = {}, [], set[str]()
        for kind, its in _states(d):
            kinds += [kind] if {*its} - OUTSIDE else []
            fields = {**its, **fields}
    if named or sorted(kinds) != _kinds(run):
        raise ValueError(f"The state of optax is of another formula than {run.title}'s: it has "
                         f"{', '.join(sorted(named) or kinds) or 'nothing'}, and here is "
                         f"{', '.join(keys if named else _kinds(run)) or 'nothing'}.")
    arrays: dict[str, dict[str, Any]] = {}
    t = whole(fields["count"], "count") if "count" in fields else None
    if not t and isinstance(d, Mapping) and not {*keys} & {*fields}:
        return Found({key: {} for key in keys}, {}, 0 if keys else t, {})  # before the first step
    for key in keys:
        if key not in fields:
            raise ValueError(f"The state of optax lacks {key}: it has {', '.join(fields) or 'no fields'}.")
        leaves, treedef = flatten(fields[key])
        arrays[key] = dict(zip(paths(treedef), leaves))
    every_path = [path for its in arrays.values() for path in its]
    begun = max(1, run.optimizer.t) if every_path else None
    return Found(arrays, {}, begun if t is None else t, {})


def _states(state: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The named tuples in optax' nested state, by their types' names."""
    if hasattr(state, "_fields"):
        yield type(state).__name__, state._asdict()
    for below in state if isinstance(state, tuple) else ():
        yield from _states(below)


WRITTEN: dict[str, Callable[[Run], dict[str, Any]]] = {"torch": to_torch, "keras": to_keras, "optax": to_optax}
READ: dict[str, Callable[[Run, Any], Found]] = {"torch": from_torch, "keras": from_keras, "optax": from_optax}
