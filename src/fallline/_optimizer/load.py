"""`load`: an optimizer, and the parameters, made again from the file that `Optimizer.save` wrote."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fallline import rules as built_in
from fallline._engines.options import Options
from fallline._formula.chain import Chain
from fallline._formula.chains import Chains
from fallline._formula.rule import Link, Rule
from fallline._messages.values import brief
from fallline._optimizer.keeping import take
from fallline._optimizer.named import OPTIMIZERS
from fallline._optimizer.optimizer import Optimizer
from fallline._optimizer.partition import Mask, Partition
from fallline._state.fingerprint import BUILT_IN, fingerprint
from fallline._state.state_dict import checked, names_function, shown
from fallline.errors import CheckpointError

if TYPE_CHECKING:
    from fallline._state.checkpoint import Contents

__all__ = ["Giving", "load", "made"]

Hyper = Callable[[Iterable[str]], Mapping[str, Any]]  # those of these names, or more


def load(path: str | os.PathLike[str], *, rules: Sequence[Any] = (), **hyper: Any) -> Any:
    """Load the optimizer from a checkpoint, ready to continue, and its parameters if the file holds them.

    Parameters
    ----------
    path: a file that `opt.save(path)` or `opt.save(path, params)` wrote.
    rules: the rules or optimizer classes in the file that are not fallline's own. Each must compute the same as before.
    **hyper: by name, the hyper-parameters that were, or contained, your own functions, as these cannot be saved. The
        same goes for the `label` of a partition or the `by` of a mask. A new one may replace a saved one, but must
        assign each leaf to the same part as before (if the file holds no parameters, the first step checks this).

    Engine, threads and `nonfinite` are restored. A `state_dir` belongs to one machine: make the optimizer, then call
    `opt.load(path)`.

    Returns the optimizer, or (optimizer, params). Dicts, lists and tuples come back as they were, other mappings as
    dicts. If the tree has any other container, such as a module, the parameters are a dict of its leaves by path, in
    order, so that `jax.tree.unflatten(jax.tree.structure(model), params.values())` is the model. Arrays of any library
    come back as NumPy arrays of the same shape and dtype, Python floats as floats. docs/guide.md shows how to copy an
    array into a tensor.

    Raises FileNotFoundError, or CheckpointError if anything is wrong with the file or missing for it.

    >>> import os, tempfile, numpy as np, fallline as fl
    >>> opt, w = fl.SGD(0.1), {"W": np.ones(2)}
    >>> w = opt.step(w, {"W": np.ones(2)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opt.save(os.path.join(folder, "run.safetensors"), w)
    ...     again, v = fl.load(os.path.join(folder, "run.safetensors"))
    >>> again, again.t, v
    (SGD(lr=0.1), 1, {'W': array([0.9, 0.9])})
    """
    from fallline._state.checkpoint import load as read

    contents = read(path)
    optimizer = made(path, contents, rules, lambda names: hyper)
    take(optimizer._stepper, path, contents)
    return optimizer if contents.params is None else (optimizer, contents.params)


class Giving(NamedTuple):
    """How what a file lacks is given, in messages: a rule or class by its name, a setting by its name."""

    rule: Callable[[str], str]
    setting: Callable[[str], str]


BY_LOAD = Giving("fl.load(path, rules=[{}])".format, lambda name: (
    f"fl.load(path, {f'{name}=...' if name.isidentifier() else f'**{{{name!r}: ...}}'})"))


def made(path: Any, contents: Contents, rules: Sequence[Any], hyper: Hyper,
         giving: Giving = BY_LOAD) -> Optimizer:
    """The optimizer of a checkpoint, without its state; rules as `load` takes them, and hyper-parameters as it does by
    a function that is told the names of those that are needed."""
    from fallline._state.file import guarding

    given = _given(rules, giving)
    with guarding(path):
        make = _partition if "parts" in contents.built else _optimizer
    return make(path, contents, given, hyper)


class _Given(NamedTuple):
    """The rules, by name, and the classes that a file may need, and how others are given."""

    rules: dict[str, list[Rule]]
    classes: dict[str, type[Optimizer]]
    how: Giving


def _optimizer(path: Any, contents: Contents, given: _Given, hyper: Hyper) -> Optimizer:
    from fallline._state.file import guarding

    with guarding(path):
        chain = _chain(path, contents.built, contents.state, given)
        name_of = partial(_short, chain)
        needed = [name_of(q) for q in _functions(contents.state, chain)]
    settings = chain.qualify(hyper(needed))
    with guarding(path):
        links = _links(path, contents.state, chain, settings, name_of, given.how)
        return _made(path, contents.built, links, given)


def _partition(path: Any, contents: Contents, given: _Given, hyper: Hyper) -> Partition:
    from fallline._state.file import guarding

    with guarding(path):
        built, state = contents.built["parts"], contents.state["parts"]
        if {name: own is None for name, own in built.items()} != {name: own is None for name, own in state.items()}:
            raise ValueError(f"its parts are {', '.join(built)}, and those of its state {', '.join(state)}")
        around = _around(contents.built)
        chains = {name: _chain(path, own, state[name], given, around) for name, own in built.items() if own is not None}
        kind = {"Partition": Partition, "Mask": Mask}[contents.built["class"]]
        options = Options(**_options(contents.built))
        whole = Chains(kind.divides.kind, chains)
        needed = [whole.name_of(name, q) for name, chain in chains.items() for q in _functions(state[name], chain)]
    own_label, divider = contents.state["label"], kind.divides.divider
    found = hyper([*needed, divider] if isinstance(own_label, str) else needed)
    label = _label(path, divider, own_label, found, given.how)
    settings = whole.by_holder({key: v for key, v in found.items() if key != divider})
    with guarding(path):
        links = {name: _links(path, state[name], chain, settings[name], partial(whole.name_of, name), given.how)
                 for name, chain in chains.items()}
        before, after = around
        parts = {name: own and _made(path, own, links[name][before : len(links[name]) - after], given)
                 for name, own in built.items()}
        first = next(iter(links.values()))
        return kind(parts, label, options, (first[:before], first[len(first) - after :]))


def _around(built: Mapping[str, Any]) -> tuple[int, int]:
    """How many rules of each part stand around all, before and behind."""
    before, after = built.get("around", (0, 0))
    if type(before) is not int or type(after) is not int or min(before, after) < 0:
        raise ValueError(f"its parts cannot have {before!r} and {after!r} rules around them")
    return before, after


def _label(path: Any, name: str, saved: Any, hyper: Mapping[str, Any], how: Giving) -> Any:
    """What says which leaf is whose: what is given, or else that of the file."""
    if isinstance(saved, str) and name not in hyper:
        raise CheckpointError(f"{path}: {name} was {brief(saved)} when it was saved. Functions cannot be saved: give "
                              f"it again, {how.setting(name)}.")
    return hyper.get(name, saved)


def _links(path: Any, state: Mapping[str, Any], chain: Chain, settings: Mapping[str, Any],
           name_of: Callable[[str], str], how: Giving) -> list[Link]:
    """The links of a chain with the settings of its state, and these, which are functions."""
    _check_functions(path, state["hyper"], settings, chain, name_of, how)
    return chain.links(checked(state, chain, settings).settings)


def _functions(state: Mapping[str, Any], chain: Chain) -> list[str]:
    """The hyper-parameters, by "rule.name", that were functions of one's own."""
    return [q for q, value in state["hyper"].items() if q in chain.hyper and names_function(value)]


def _short(chain: Chain, qualified: str) -> str:
    """The shortest name that means a hyper-parameter."""
    name = chain.hyper[qualified].name
    return name if chain.short.get(name) == qualified else qualified


def _given(items: Sequence[Any], how: Giving) -> _Given:
    found: dict[str, list[Rule]] = {}
    classes = dict(OPTIMIZERS)
    for item in items if isinstance(items, Iterable) else [items]:
        rule = item.rule if isinstance(item, type) and issubclass(item, Optimizer) else item
        if not isinstance(rule, Rule):
            raise TypeError("rules must be a list of rules (fallline.rule) or classes of optimizers. "
                            f"Got {brief(item)}.")
        found.setdefault(rule.name, []).append(rule)
        if rule is not item:
            classes[item.__name__] = item
    return _Given(found, classes, how)


def _chain(path: Any, built: Mapping[str, Any], state: Mapping[str, Any], given: _Given,
           around: tuple[int, int] = (0, 0)) -> Chain:
    links = []
    for (name, title), origin in zip(built["links"], state["rules"].values(), strict=True):
        if type(name) is not str or type(title) is not str:
            raise ValueError("the names of its rules are no text")
        if origin == BUILT_IN:
            rule = getattr(built_in, name, None)
        else:  # rules may share a name, as those made of lambdas do
            candidates = given.rules.get(name, [])
            rule = next((r for r in candidates if fingerprint(r) == origin), next(iter(candidates), None))
        if not isinstance(rule, Rule):
            raise CheckpointError(f"{path} needs the rule {name!r}, which is not fallline's own: give it, "
                                  f"{given.how.rule(name)}.")
        links.append(Link(rule, {}, title))
    return Chain(links, around)


def _check_functions(path: Any, saved: Mapping[str, Any], given: Mapping[str, Any], chain: Chain,
                     name_of: Callable[[str], str], how: Giving) -> None:
    """Refuse functions that are missing, and what is given where there was none; `name_of` says how they are given."""
    for qualified, value in saved.items():
        if names_function(value) != (qualified in given):
            hyper, owner = chain.hyper[qualified].name, chain.owner(qualified)
            remedy = ("It is restored: load without, and assign it afterwards" if qualified in given else
                      f"Functions cannot be saved: give it again, {how.setting(name_of(qualified))}")
            raise CheckpointError(f"{path}: {hyper} of {owner} was {shown(value)} when it was saved. {remedy}.")


def _made(path: Any, built: Mapping[str, Any], links: Sequence[Link], given: _Given) -> Optimizer:
    name, options = built["class"], _options(built)
    if name == Optimizer.__name__:
        return Optimizer(*links, **options)
    if "flags" in built:
        return _dialect(built, links, options)
    cls = given.classes.get(name)
    if cls is None or cls.rule is not links[0].rule or len(links) > 1:
        raise CheckpointError(f"{path} needs the class {name}, which is not fallline's own: give it, "
                              f"{given.how.rule(name)}.")
    return cls(**links[0].settings, **options)


def _dialect(built: Mapping[str, Any], links: Sequence[Link], options: Mapping[str, Any]) -> Optimizer:
    """An optimizer as another library has it."""
    known = importlib.import_module("fallline.dialects").every()  # which stand above, and are loaded when asked for
    if built["class"] not in known:
        raise ValueError(f"it needs {built['class']}, and known are {', '.join(known)}")
    return cast(Optimizer, known[built["class"]].again(built, links, options))


def _options(built: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(built["options"])
    if not options.keys() <= {"engine", "nonfinite", "threads"}:
        raise ValueError(f"it holds unknown options: {', '.join(options)}")
    return options
