"""What makes an optimizer of a function with another library's arguments."""

from __future__ import annotations

import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from fallline._engines.options import Options
from fallline._formula.chain import distinct
from fallline._formula.notation.code import in_lines
from fallline._formula.ranges import is_finite
from fallline._formula.rule import Link, Rule
from fallline._formula.settings import check, looks_like_parameters
from fallline._messages.suggestions import REMEDY, meant_within, unknown_setting
from fallline._messages.values import brief, shown
from fallline._optimizer.named import OPTIMIZERS
from fallline._optimizer.optimizer import Optimizer

__all__ = ["Dialect", "Given", "dialect", "link", "missing", "only", "refuse"]


class Dialect(Optimizer):
    """An optimizer as another library has it; `links_of` makes its links of that library's `arguments`."""

    title: ClassVar[str]
    summary: ClassVar[str]
    arguments: ClassVar[inspect.Signature]
    links_of: ClassVar[Callable[..., Iterable[Link | None]]]

    def __init__(self, *args: Any, **named: Any) -> None:
        options = {name: named.pop(name) for name in Options._fields if name in named}
        given = self._arguments(args, named)
        links = [each for each in type(self).links_of(**given) if each is not None]
        where: dict[tuple[str, int], str] = {}  # of which argument, and part, a hyper-parameter has its value
        for name, each in zip(distinct([each.rule.name for each in links]), links):
            for h, value in each.settings.items():
                if isinstance(value, Given):
                    where[value.source] = f"{name}.{h}"
                    check(each.rule.hyper[h]._replace(name=value.source[0]), value.own, self.title)
        super().__init__(*(Link(each.rule, {h: plain(value) for h, value in each.settings.items()},
                                self.title if each.rule.kind == "rule" else "") for each in links), **options)
        # of each argument the hyper-parameters, by "rule.name", that have its values (None: None); what else was given
        self._kept_in: dict[str, list[str | None]] = {}
        for name, value in given.items():
            parts = value if isinstance(value, tuple) else (value,)
            found = [where.get((name, k)) for k in range(len(parts))]
            if any(found) and all(q or part is None for q, part in zip(found, parts)):
                self._kept_in[name] = found
        self._flags = {name: plain(value) for name, value in given.items() if name not in self._kept_in}
        for name, value in self._flags.items():
            default = self.arguments.parameters[name].default
            if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
                raise TypeError(f"{name} of {self.title} must be a number where it is not used. Got {brief(value)}.")

    @classmethod
    def again(cls, built: Mapping[str, Any], links: Sequence[Link], options: Mapping[str, Any]) -> Dialect:
        """The one of a file, of these links.

        Raises ValueError if arguments or hyper-parameters are named that there are not.
        """
        made = object.__new__(cls)
        Optimizer.__init__(made, *links, **options)
        made._flags, made._kept_in = dict(built["flags"]), {name: list(own) for name, own in built["kept_in"].items()}
        known = {q for own in made._kept_in.values() for q in own if q} <= set(made._chain.hyper)
        if not known or {*made._flags, *made._kept_in} != set(cls.arguments.parameters):
            raise ValueError(f"its arguments are not those of {cls.title}")
        return made

    def _arguments(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """All arguments by name; what may be a hyper-parameter's value is `Given`."""
        if looks_like_parameters(args[0] if args else named.get("params")):
            raise TypeError(f"{self.title} is made without parameters: {REMEDY}.")
        unknown_setting(self.title, named, self.arguments.parameters, "argument")
        try:
            bound = self.arguments.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{self.title}{self.arguments}: {error}.") from None
        bound.apply_defaults()
        for name, parameter in self.arguments.parameters.items():
            pair, value = parameter.default, bound.arguments[name]
            if isinstance(pair, tuple) and (not isinstance(value, (tuple, list)) or len(value) != len(pair)):
                raise TypeError(f"{name} of {self.title} must be {len(pair)} numbers, such as {pair}. "
                                f"Got {brief(value)}.")
            if isinstance(pair, bool) and not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} of {self.title} must be True or False. Got {brief(value)}.")
            is_number = pair is parameter.empty or (isinstance(pair, (int, float)) and not isinstance(pair, bool))
            if isinstance(pair, tuple):
                bound.arguments[name] = tuple(None if v is None else Given(v, (name, k)) for k, v in enumerate(value))
            elif is_number or not (value is None or isinstance(value, (bool, np.bool_, str))):
                bound.arguments[name] = Given(value, (name, 0))
        return dict(bound.arguments)

    @classmethod
    def usual(cls) -> Dialect:
        """The one with the defaults of its library, and where that has none for the rate, with 1e-3."""
        return cls(*(1e-3 for p in cls.arguments.parameters.values() if p.default is p.empty))

    @property
    def _title(self) -> str:
        return self.title

    def _described(self) -> str:
        settings = self._stepper.holders[""].settings
        said = []
        for name, parameter in self.arguments.parameters.items():
            if name in self._kept_in:
                values = [shown(settings[q] if q else None) for q in self._kept_in[name]]
                said.append(f"{name}=({', '.join(values)})" if isinstance(parameter.default, tuple) else
                            f"{name}={values[0]}")
            elif self._flags[name] != parameter.default or isinstance(parameter.default, float):
                said.append(f"{name}={shown(self._flags[name])}")
        return f"{self.title}({', '.join(said)})"

    def _built(self) -> dict[str, Any]:
        return {**super()._built(), "class": self.title, "flags": self._flags, "kept_in": self._kept_in}


class Given:
    """A value that was given for an argument, so that it is known where it goes; compared as a number other than 0
    where it is none, such as a schedule, or one that differs by leaf."""

    def __init__(self, own: Any, source: tuple[str, int]) -> None:
        self.own, self.source = own, source

    def _compared(self, compare: Callable[[Any, Any], bool], other: Any) -> bool:
        return compare(self.own if isinstance(self.own, numbers.Real) else math.inf, other)

    def __eq__(self, other: object) -> bool:
        return self._compared(operator.eq, other)

    def __lt__(self, other: float) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: float) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: float) -> bool:
        return self._compared(operator.gt, other)

    def __repr__(self) -> str:
        return brief(self.own)

    __hash__ = None  # type: ignore[assignment]

    def rounded(self) -> Given:
        """The same with its number as float32 has it."""
        number = isinstance(self.own, numbers.Real) and not isinstance(self.own, bool)
        return Given(float(np.float32(self.own)) if number else self.own, self.source)


def plain(value: Any) -> Any:
    """What was given."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    own = value.own if isinstance(value, Given) else value
    return float(own) if isinstance(own, numbers.Real) and not isinstance(own, bool) and is_finite(own) else own


def dialect(*around: Callable[..., Iterable[Link | None]]) -> Callable[[Callable[..., Any]], Any]:
    """What makes a class of a function with another library's name, arguments and defaults.

    Such a function returns links. What is around takes these, one after the other, and gives more; the arguments that
    it has by name follow the function's own. An argument of both has the place and default of the function's own.
    """
    taken = [[name for name, p in inspect.signature(each).parameters.items() if p.kind is p.KEYWORD_ONLY]
             for each in around]  # fmt: skip
    shared = {name: inspect.signature(each).parameters[name] for each, names in zip(around, taken) for name in names}

    def made(of: Callable[..., Any]) -> Any:
        own = inspect.signature(of).parameters
        library, name = of.__module__.rpartition(".")[2], of.__name__
        bare = [p.replace(annotation=p.empty) for p in (*own.values(), *(shared[n] for n in shared if n not in own))]
        options = [inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default)
                   for option, default in Options._field_defaults.items()]
        example = "" if bare[0].default is not bare[0].empty else "0.1"
        told = inspect.getdoc(of) or ""
        said = (f"Arguments and defaults are those of {library}; hyper-parameters go by "
                f"fallline's names, `opt.hyper`.\nFor {', '.join(Options._fields)}, and what may stand in a number's "
                f"place, see `fallline.Optimizer`.\n\n>>> import numpy as np, fallline as fl\n"
                f">>> opt = fl.dialects.{library}.{name}({example})\n"
                ">>> bool(np.all(opt.step(np.ones((2, 2)), np.ones((2, 2))) < 1.0))\nTrue\n")

        def links_of(**given: Any) -> Iterable[Link | None]:
            links = of(**{n: given[n] for n in own})
            for each, names in zip(around, taken):
                links = each(links, **{n: given[n] for n in names})
            return cast(Iterable[Link | None], links)

        return type(name, (Dialect,), {
            "links_of": staticmethod(links_of), "arguments": inspect.Signature(bare), "__doc__": _Docstring(told, said),
            "summary": told.splitlines()[0],
            "title": f"dialects.{library}.{name}", "__module__": of.__module__,
            "__signature__": inspect.Signature([*bare, *options])})  # fmt: skip

    return made


class _Docstring(NamedTuple):
    """The docstring of a class, which has its formulas as they are by default between what else it says."""

    first: str
    last: str

    def __get__(self, optimizer: Any, cls: type[Dialect]) -> str:
        formulas = "\n".join(in_lines(rule) for rule in cls.usual()._chain.rules)
        return f"{self.first}\n\nFormula, with its defaults\n--------------------------\n{formulas}\n\n{self.last}"


def link(rule: Rule, **settings: Any) -> Link:
    """A rule with settings, which are checked with all others."""
    return Link(rule, settings)


def only(condition: Any, rule: Rule, **settings: Any) -> Link | None:
    """A link that is there under a condition."""
    return link(rule, **settings) if condition else None


def missing(module: str, known: Sequence[str]) -> Callable[[str], Any]:
    """What a module of dialects answers for a name that it does not have."""

    def answered(name: str) -> Any:
        ours = next((own for own in OPTIMIZERS if own.lower() == name.lower()), None)
        hint = meant_within(name, known) or (f" fallline.{ours} has the formula of its paper." if ours else "")
        raise AttributeError(f"module {module!r} has no attribute {name!r}. Known: {', '.join(known)}."
                             f"{'' if name.startswith('_') else hint}", name=name)

    return answered


def refuse(what: str, remedies: dict[str, tuple[Any, str]]) -> None:
    """Raise ValueError for arguments that ask for what is done otherwise here: by name what was given, and how."""
    for name, (value, remedy) in remedies.items():
        if value not in (None, False):
            raise ValueError(f"{name}={brief(value)} of {what} is not taken here: {remedy}.")
