"""A rule's signature is its whole schema: `rule`, `before` and `after` read it, and nothing restates it.

>>> @rule
... def signed(g, *, lr: NonNegative = 1e-3):
...     return -lr * sign(g)
>>> signed
<rule signed(g, *, lr=0.001)>
>>> signed(lr=0.1)                                # a link of a chain: the rule with its hyper-parameters
signed(lr=0.1)
"""

from __future__ import annotations

import inspect
import numbers
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple, NoReturn, get_args, get_origin

from fallline._formula.ieee import Formula
from fallline._formula.notation.notebook import Drawn
from fallline._formula.ranges import Bound, Count, Fraction, Hyper, NonNegative, Positive, Range, Real, is_finite
from fallline._formula.settings import check
from fallline._formula.symbols import Symbol
from fallline._formula.words import SCOPES, sign  # noqa: F401  (sign: the doctest above)
from fallline._messages.suggestions import unknown_setting
from fallline._messages.values import brief, shown
from fallline.errors import FormulaError

__all__ = [
    "Bound", "Count", "Fraction", "Hyper", "Link", "NonNegative", "Positive", "Range", "Real", "Rule", "after",
    "before", "rule", "scalar", "shaped",
]  # fmt: skip


class Scalar(NamedTuple):
    """The start of a state slot that is one number per leaf or for the tree; see `scalar`."""

    start: float | str
    over: str


def scalar(start: float | str, over: str = "tree") -> Any:
    """Make a state slot one number for each leaf, or for the tree, instead of one per coordinate.

    Use it as the default of a slot. `start`: a number or the name of a hyper-parameter; `over`: "leaf" or "tree". The
    number is float64, whatever the parameters' dtype, and a scalar in the formula; `opt.state` shows it as an array of
    shape (). The rule raises FormulaError for any other `start` or `over`.

    >>> @rule
    ... def counted(g, calls=scalar(0, over="leaf"), *, lr: NonNegative = 0.1):
    ...     return -lr/(calls + 1)*g, calls + 1
    >>> counted
    <rule counted(g, calls=scalar(0, over='leaf'), *, lr=0.1)>
    """
    return Scalar(start, over)


class Shaped(NamedTuple):
    """The start of a state slot of another shape than the leaf's; see `shaped`."""

    start: float | str
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]


def shaped(start: float | str, shape: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Any:
    """Give a state slot of a whole-leaf rule a shape of its own, as a function of the leaf's shape.

    Use it as the default of a slot. `start`: a number or the name of a hyper-parameter; `shape`: a function from a
    tuple of integers to a tuple of integers. Raises FormulaError if it is no function, and once the parameters are
    known, if it returns anything else.

    >>> shaped(0, lambda shape: shape[:1]).shape((3, 4))
    (3,)
    """
    if not callable(shape):
        raise FormulaError("shaped(start, shape) takes a function of the leaf's shape, such as "
                           f"lambda shape: shape[:1]. Got {brief(shape)}.")
    return Shaped(start, shape)


KINDS = {
    "rule": ("g", "x", "t"),  # gradient -> increment
    "before": ("g", "x", "t"),  # gradient -> gradient
    "after": ("d", "x", "t"),  # increment -> increment
}
_MEANING = {"g": "the gradient", "d": "the increment", "x": "the parameter", "t": "the step number from 1"}
_KINDS = {"rule": "a rule", "before": "a modifier of the gradient", "after": "a modifier of the increment"}
_OWN = "fallline.rules."
_RETURNS = {"rule": "the increment", "before": "the gradient", "after": "the increment"}


def _no_optimizer(owner: Rule | Link) -> NoReturn:
    name = owner.name if isinstance(owner, Rule) else owner
    raise AttributeError(f"A rule by itself takes no steps. Make an optimizer of it: fallline.Optimizer({name}).")


class Rule(Drawn):
    """A formula and the schema read off its signature.

    Calling a rule with settings gives a link for `fallline._formula.chain`; `rule.formula` is the function itself.

    Attributes
    ----------
    name, kind: the function's name; "rule", "before" or "after".
    given: the arguments that the engine supplies, of g, d, x, t.
    slots: state slots in order, each with its start (a number, the name of a hyper-parameter, "x" or "g").
    scopes: the slots that are one number, with what for: "leaf" or "tree".
    hyper: hyper-parameters by name.
    shapes: the slots that are not shaped like the leaf, with their shape as a function of the leaf's.
    rest: the formula of the point to report, if that is not the parameter; see `rule`.
    whole_leaf: whether the formula is a function of whole arrays; see `rule`.
    hold: the formula of the calls in which the chain does not step; see `rules.accumulate`.
    """

    step = update = property(_no_optimizer)

    def __init__(self, formula: Callable[..., Any], kind: str, rest: Callable[..., Any] | None = None,
                 hold: Callable[..., Any] | None = None, whole_leaf: bool = False) -> None:
        _check_function(formula, kind)
        self.formula = Formula(formula)
        self.kind = kind
        name = getattr(formula, "__name__", "rule")
        self.name: str = "rule" if name == "<lambda>" else name
        self.__doc__ = inspect.getdoc(formula)
        self.__name__ = self.name
        self.__module__ = getattr(formula, "__module__", None) or __name__  # None where exec was given a bare dict
        self.__wrapped__ = formula
        self.given: tuple[str, ...] = ()
        self.slots: dict[str, float | str] = {}
        self.scopes: dict[str, str] = {}
        self.shapes: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {}
        self.whole_leaf = whole_leaf
        self.hyper: dict[str, Hyper] = {}
        self._read_signature()
        self.rest = rest
        self.hold = hold
        self._check_rest()

    def _read_signature(self) -> None:
        given = []
        for p in self._parameters():
            if p.name.startswith("_"):
                self._refuse(f"`{p.name}` begins with an underscore, which is for what is not public")
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                self._refuse(f"`{p}` leaves the schema open: name every state slot and every hyper-parameter")
            elif p.kind is p.KEYWORD_ONLY:
                if p.name in KINDS[self.kind]:
                    self._refuse(f"`{p.name}` is {_MEANING[p.name]} and stands before `*`")
                self.hyper[p.name] = self._hyper(p)
            elif p.default is p.empty:
                if p.name not in KINDS[self.kind]:
                    known = ", ".join(f"{n} ({_MEANING[n]})" for n in KINDS[self.kind])
                    why = ("a rule is a plain function: write it outside the class" if p.name in ("self", "cls") else
                           f"a state slot needs its start (`{p.name}=0`), a hyper-parameter stands after `*`")
                    self._refuse(f"unknown argument `{p.name}`. Without a default it must be one of {known}; {why}")
                given.append(p.name)
            else:
                if p.name in KINDS[self.kind]:
                    self._refuse(f"`{p.name}` is {_MEANING[p.name]} and takes no default: give the slot another name")
                self._slot(p.name, p.default)
        self.given = tuple(given)
        for name, start in self.slots.items():
            self._check_start(name, start)

    def _parameters(self) -> list[inspect.Parameter]:
        try:
            return list(inspect.signature(self.formula, eval_str=True).parameters.values())
        except (NameError, AttributeError, SyntaxError) as error:
            self._refuse(f"an annotation cannot be read ({error})")

    def _hyper(self, p: inspect.Parameter) -> Hyper:
        annotated = get_origin(p.annotation) is Annotated
        found = [extra for extra in get_args(p.annotation) if isinstance(extra, Range)] if annotated else []
        if not annotated and p.annotation not in (p.empty, float, Any):
            self._refuse(f"the annotation of `{p.name}` is its range: NonNegative, Positive, Fraction or float. "
                         f"Got {brief(p.annotation)}")
        hyper = Hyper(p.name, None, found[0] if found else Real)
        if p.default is p.empty:
            return hyper
        if not isinstance(p.default, numbers.Real) or isinstance(p.default, bool):
            self._refuse(f"`{p.name}={brief(p.default)}` is no number, as a default must be: schedules, trees and "
                         "arrays are given to the optimizer, and a variant is another rule")
        return Hyper(p.name, hyper.check(p.default, f"{self.name}'s signature"), hyper.range)

    def _slot(self, name: str, default: Any) -> None:
        if isinstance(default, Scalar):
            if default.over not in SCOPES:
                self._refuse(f'the number `{name}` is one over "leaf" or over "tree". Got {default.over!r}')
            self.scopes[name], default = default.over, default.start
        elif isinstance(default, Shaped):
            if not self.whole_leaf:
                self._refuse(f"the state slot `{name}` is shaped like the leaf: other shapes are for whole_leaf=True")
            self.shapes[name], default = default.shape, default.start
        self.slots[name] = default

    def _check_start(self, name: str, start: Any) -> None:
        if self.whole_leaf and name in self.scopes:
            self._refuse(f"the state slot `{name}` of whole leaves is an array: write shaped(start, lambda shape: ())")
        number = isinstance(start, (int, float)) and not isinstance(start, bool) and is_finite(start)
        arrays = [] if name in self.scopes or self.whole_leaf else ["x", *(["g"] if self.kind != "after" else [])]
        if not number and not (isinstance(start, str) and (start in self.hyper or start in arrays)):
            self._refuse(f"state slot `{name}` must start at a finite number, at the name of a hyper-parameter "
                         f"({', '.join(self.hyper) or 'there is none'})"
                         f"{' or at ' * bool(arrays)}{' or '.join(arrays)}. Got {start!r}")

    def _check_rest(self) -> None:
        if self.rest is not None and not callable(self.rest):
            self._refuse(f"its `rest` is a function of x, state slots and hyper-parameters. Got {brief(self.rest)}")
        names = [] if self.rest is None else list(inspect.signature(self.rest).parameters)
        unknown = [n for n in names[1:] if n not in (*self.slots, *self.hyper)]
        if self.rest is not None and (names[:1] != ["x"] or unknown):
            self._refuse(f"its `rest` is a function of x, state slots and hyper-parameters. Got {', '.join(names)}")

    @property
    def built_in(self) -> bool:
        """Whether it is fallline's own, of which the name says all."""
        return self.__module__.startswith(_OWN) and getattr(sys.modules[self.__module__], self.name, None) is self

    @property
    def title(self) -> str:
        """What messages about its formula call it."""
        unnamed = getattr(self.formula, "__name__", "<lambda>") == "<lambda>"
        return f"an unnamed {self.kind}" if unnamed else f"{self.kind} {self.name}"

    def _refuse(self, why: str) -> NoReturn:
        raise FormulaError(f"Signature of {self.title}: {why}.")

    def split(self, result: Any) -> tuple[Any, tuple[Any, ...]]:
        """What the formula returned, as its value and the new state in the order of the signature."""
        if result is None or isinstance(result, list):
            raise FormulaError(f"{self.name} must return {', '.join([_RETURNS[self.kind], *self.slots])}"
                               f"{', as a tuple' if self.slots else ''}. Got {type(result).__name__}.")
        values = result if isinstance(result, tuple) else (result,)
        if len(values) != 1 + len(self.slots):
            wanted = ", ".join([_RETURNS[self.kind], *self.slots])
            fewer = (" A default before `*` makes a state slot; hyper-parameters stand behind it."
                     if len(values) <= len(self.slots) else "")
            raise FormulaError(f"{self.name} must return {wanted} ({1 + len(self.slots)} "
                               f"value{'s' if self.slots else ''}): its signature has {len(self.slots)} "
                               f"state slot{'' if len(self.slots) == 1 else 's'}. Got {len(values)}.{fewer}")
        return values[0], values[1:]

    def __call__(self, *args: Any, **settings: Any) -> Link:
        if any(isinstance(value, Symbol) for value in (*args, *settings.values())):
            raise FormulaError(f"Inside a formula, call the formula of a rule: {self.name}.formula(g, ...).")
        own = [h.name for h in self.hyper.values() if h.default is not None]
        if len(args) > len(own):
            known = f"at most {len(own)} setting{'s' * (len(own) > 1)} by position ({', '.join(own)})"
            place = f"fallline.Optimizer({self.name})" if self.kind == "rule" else f"fallline.chain({self.name}, ...)"
            raise TypeError(f"{self.name} takes {known if own else 'no settings by position'}. Got {len(args)}. "
                            f"Arrays are given to an optimizer, {place}; the formula itself is {self.name}.formula.")
        for name, value in zip(own, args):
            if name in settings:
                raise TypeError(f"{name} of {self.name} was given twice, by position and by name.")
            settings[name] = value
        unknown_setting(self.name, settings, self.hyper)
        for name, value in settings.items():
            check(self.hyper[name], value, self.name)
        return Link(self, settings)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        # A rule of a module travels by name, as functions do; one of a script by its formula, which libraries that
        # start workers (joblib) take along by value, and pickle by the name that it has since the rule took its own.
        if getattr(sys.modules.get(self.__module__), self.name, None) is self:
            if self.__module__ != "__main__":
                return self.name
            self.__wrapped__.__qualname__ = f"{self.name}.__wrapped__"
        return Rule, (self.__wrapped__, self.kind, self.rest, self.hold, self.whole_leaf)

    def __deepcopy__(self, memo: Any) -> Rule:
        return self

    def __repr__(self) -> str:
        slots = [f"{n}={f'scalar({s!r}, over={self.scopes[n]!r})' if n in self.scopes else repr(s)}"
                 for n, s in self.slots.items()]
        hyper = [h.name if h.default is None else f"{h.name}={h.default!r}" for h in self.hyper.values()]
        return f"<{self.kind} {self.name}({', '.join([*self.given, *slots, *(['*'] if hyper else []), *hyper])})>"

    def _sections(self) -> list[tuple[str, Link]]:
        return [("", Link(self, {h.name: h.default for h in self.hyper.values() if h.default is not None}))]


def _check_function(formula: Any, kind: str) -> None:
    """Refuse what is no function that returns."""
    a_kind = _KINDS[kind]
    if isinstance(formula, Rule):
        raise FormulaError(f"{formula.name} is {_KINDS[formula.kind]} already.")
    if not callable(formula) or isinstance(formula, type) or hasattr(formula, "hyper"):  # optimizers are callable
        raise FormulaError(f"{a_kind.capitalize()} is a function of {KINDS[kind][0]}, ... Got {brief(formula)}.")
    if any(asks(formula) for asks in _NOT_RETURNING):
        raise FormulaError(f"{a_kind.capitalize()} is a function that returns: no `async`, no `yield`. "
                           f"Got {brief(formula)}.")


_NOT_RETURNING = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


@dataclass(frozen=True)
class Link(Drawn):
    """A rule with the settings given for it, ready to stand in a chain; `title` is what messages call it."""

    rule: Rule
    settings: Mapping[str, Any]
    title: str = ""
    step = update = property(_no_optimizer)

    def __repr__(self) -> str:
        return f"{self.rule.name}({', '.join(f'{k}={shown(v)}' for k, v in self.settings.items())})"

    def _sections(self) -> list[tuple[str, Link]]:
        return [("", self)]


def rule(formula: Callable[..., Any] | None = None, *, rest: Callable[..., Any] | None = None,
         whole_leaf: bool = False) -> Any:
    """Turn a function `(g, [x], [t], slot=start, ..., *, hyper=default, ...)` into a rule; it returns Δθ and the new
    state.

    Positional arguments without a default are supplied by the engine: `g` the gradient, `x` the parameter, `t` the step
    number, from 1. Positional arguments with a default are state slots, one array each, shaped like the parameter. The
    default is the initial value: a number, the name of a hyper-parameter, "x" (the parameter) or "g" (the first
    gradient); `scalar(start)` makes a slot one number. Arguments after `*` are hyper-parameters; annotate them with
    `NonNegative`, `Positive` or `Fraction` to check their range.

    `rest`, a function of x, slots and hyper-parameters, is the point to report if that is not the parameter, where
    gradients are taken: see `Optimizer.rest`. Write `@rule(rest=...)`.

    `whole_leaf=True`: the formula is a function of NumPy arrays, one whole leaf at a time, in the compute dtype, for
    algorithms that are no formula over coordinates (matrix products, factored state). It can use all of NumPy, must not
    change its arguments, and its slots can be `shaped`. It is not traced: it promises neither the same bits on every
    machine nor one pass through memory, and takes only real arrays in host memory.

    Raises FormulaError for any other signature.

    >>> rule(lambda g, *, lr=0.1: -lr * g)
    <rule rule(g, *, lr=0.1)>
    """
    made = partial(Rule, kind="rule", rest=rest, whole_leaf=whole_leaf)
    return made if formula is None else made(formula)


def before(formula: Callable[..., Any] | None = None, *, hold: Callable[..., Any] | None = None) -> Any:
    """Turn a function `(g, [x], [t], slot=start, ..., *, hyper)` into a modifier of the gradient, before the rule.

    >>> @before
    ... def halve(g):
    ...     return g / 2
    >>> halve
    <before halve(g)>

    `hold` is for calls in which the chain does not step: a function of g and the state, and by name of
    hyper-parameters, that returns the new state. fallline's own is `rules.accumulate`, where the number `calls` and the
    hyper-parameter `n` determine these calls.
    """
    return partial(Rule, kind="before", hold=hold) if formula is None else Rule(formula, "before", hold=hold)


def after(formula: Callable[..., Any]) -> Rule:
    """Turn a function `(d, [x], [t], slot=start, ..., *, hyper)` into a modifier of the increment, after the rule.

    A hyper-parameter without a default takes the value of the chain's hyper-parameter of that name.

    >>> @after
    ... def shrink(d, x, *, lr, rate=0.01):
    ...     return d - lr * rate * x
    >>> shrink
    <after shrink(d, x, *, lr, rate=0.01)>
    """
    return Rule(formula, "after")


def summary(rule: Rule) -> str:
    """The first paragraph of a rule's docstring, in one line."""
    return " ".join(textwrap.dedent(rule.__doc__ or "").split("\n\n")[0].split())
