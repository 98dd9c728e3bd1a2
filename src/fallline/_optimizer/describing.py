"""The docstring and signature of a named optimizer, from its rule; state and parts by name."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

from fallline._arrays.sealed import ReadOnly
from fallline._engines.options import Options
from fallline._formula.chain import Chain
from fallline._formula.rule import Link, Rule
from fallline._formula.settings import looks_like_parameters
from fallline._messages.suggestions import REMEDY, unknown_setting

__all__ = ["Docstring", "PartsByName", "Slots", "SlotsOfParts", "option", "own_link", "signature_of"]


class Slots(ReadOnly):
    """State by the names of its slots; asked for another, it says which there are."""

    def __init__(self, trees: Mapping[str, Any], chain: Chain) -> None:
        super().__init__(trees)
        self._chain = chain

    def __missing__(self, name: object) -> NoReturn:
        known = self._chain.starts()
        if name in known:
            raise KeyError(f"{self._chain.title} has no state yet: {name} starts with the first step.")
        raise KeyError(f"{self._chain.title} has no state {name!r}. Known: {', '.join(known) or 'none'}.")


class SlotsOfParts(ReadOnly):
    """State by the names of the parts of a partition; asked for another, it says which there are."""

    def __missing__(self, name: object) -> NoReturn:
        first = next(iter(self))
        raise KeyError(f"There is no part {name!r}; a partition has its state part by part, opt.state[{first!r}]. "
                       f"Known: {', '.join(self)}.")


class PartsByName(ReadOnly):
    """The parts of a partition by name; asked for another, it says which there are."""

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(f"There is no part {name!r} that steps leaves. Known: {', '.join(self)}.")


def option(name: str, doc: str) -> Any:
    """A property: an option as it was given."""
    return property(lambda optimizer: getattr(optimizer._stepper.options, name), doc=doc)


def signature_of(rule: Rule) -> inspect.Signature:
    """A named optimizer's signature, from its rule: lr by position or name, everything else by name."""
    kind = inspect.Parameter
    own = [kind(h.name, kind.POSITIONAL_OR_KEYWORD if h.name == "lr" else kind.KEYWORD_ONLY,
                default=kind.empty if h.default is None else h.default)
           for h in sorted(rule.hyper.values(), key=lambda h: h.name != "lr")]
    options = [kind(name, kind.KEYWORD_ONLY, default=default) for name, default in Options._field_defaults.items()]
    return inspect.Signature([*own, *options])


class Docstring:
    """The docstring of a named optimizer, from its rule, written when it is asked for."""

    def __get__(self, optimizer: Any, cls: Any) -> str:
        return docstring_of(cls.__name__, cls.rule)


@lru_cache
def docstring_of(name: str, rule: Rule) -> str:
    from fallline._formula.notation.code import WIDTH, in_lines  # for who reads it

    said = [text if text.startswith(">>>") else textwrap.fill(" ".join(text.split()), WIDTH)
            for text in (rule.__doc__ or "").split("\n\n")]  # fmt: skip
    hyper = "\n".join(f"{h.name}: {h.range.text}{'' if h.default is None else f', default {h.default:g}'}"
                      for h in rule.hyper.values())
    slots = "\n".join(f"{slot}: starts at {start}{_extent(rule, slot)}" for slot, start in rule.slots.items())
    example = f">>> import fallline as fl\n>>> round(fl.{name}().step(1.0, 2.0), 6) < 1.0\nTrue\n"
    sections = {"Formula": in_lines(rule), "Hyper-parameters": hyper,
                "State, one value per coordinate unless noted": slots or "none"}  # fmt: skip
    return "\n\n".join([*said, *(f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections.items() if text),
                        f"See `Optimizer` for {', '.join(Options._fields)},\n"
                        "and for schedules and trees in place of numbers.",
                        example])  # fmt: skip


def _extent(rule: Rule, slot: str) -> str:
    """Of a state slot that has no number for each coordinate, what it has one for."""
    if slot in rule.shapes:
        return ", has a shape of its own"
    extents = {"leaf": ", one number for each leaf", "tree": ", one number for the tree"}
    return extents[rule.scopes[slot]] if slot in rule.scopes else ""


def own_link(name: str, rule: Rule, args: tuple[Any, ...], hyper: Mapping[str, Any]) -> Link:
    """The link of an optimizer of that name: lr may be given by position, all else by name; raises TypeError."""
    positional = ["lr"] if "lr" in rule.hyper else []
    if len(args) > len(positional):
        hint = f" Parameters? {REMEDY.capitalize()}." if any(map(looks_like_parameters, args)) else ""
        hint = f" As a SciPy method pass an instance: method={name}()." if callable(args[0]) else hint
        named = ", ".join(key for key in rule.hyper if key not in positional)
        raise TypeError(f"{name} takes {'only lr' if positional else 'nothing'} by position, all else by name"
                        f"{f' ({named})' * bool(named)}. "
                        f"Got {len(args)} positional argument{'s' * (len(args) > 1)}.{hint}")
    settings = dict(hyper)
    for key, value in zip(positional, args):
        if key in settings:
            raise TypeError(f"{name} is made without parameters: {REMEDY}." if looks_like_parameters(value) else
                            f"{key} of {name} was given twice, by position and by name.")
        settings = {key: value, **settings}
    unknown_setting(name, settings, rule.hyper)
    return Link(rule, settings, name)
