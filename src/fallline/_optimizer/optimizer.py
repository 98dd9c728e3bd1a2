"""Optimizer: a chain of rules with its hyper-parameters and state; `update` and `step` live here."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from fallline import rules
from fallline._arrays.trees import copy as copied
from fallline._arrays.trees import flatten, paths
from fallline._engines.options import Options
from fallline._formula.chain import Chain, as_link
from fallline._formula.rule import Link, Rule
from fallline._formula.settings import looks_like_parameters, owned, renewed
from fallline._messages.suggestions import REMEDY, unknown_setting
from fallline._optimizer.describing import Slots, docstring_of, signature_of
from fallline._optimizer.points import averages, keeps_none, loaded_averages, point_at
from fallline._optimizer.stepping import LAST_STEP, Stepping
from fallline._state import fields
from fallline._state.state_dict import LeafStates
from fallline._step.binding import Binding
from fallline._step.turn import Turn
from fallline.errors import FormulaError
from fallline.rules import average

__all__ = ["Optimizer", "accumulate", "chain"]



class Optimizer(Stepping):
    """A chain of rules with hyper-parameters and state.

    Parameters
    ----------
    *links: rules (`fallline.rule`), modifiers and optimizers, in order; see `fallline._formula.chain`.
    engine: "auto", "reference" (NumPy), "native" (LLVM) or "eager" (arrays of any library).
    nonfinite: what a gradient with NaN or infinity does: "raise" NonFiniteGradient, "skip" the call (counted in
        `skipped`), or "propagate" (no check).
    threads: how many threads a step of the native engine may use; None: `fallline.set_num_threads`.
    state_dir: a folder for files that hold the state in place of memory, so that it may be larger than that: scratch,
        gone with the optimizer, no checkpoint. The first step takes up the room, or raises OSError.
    **hyper: hyper-parameters by name, or by "rule.name" where a name means more than one: a number, a schedule
        (a function of the number of completed steps), or a tree of these shaped like the parameters.

    Raises TypeError for unknown names (listing the known ones), ValueError for values out of range, FormulaError for a
    chain that is none.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.Optimizer(fl.rule(lambda g, *, lr=0.1: -lr * g), lr=0.5)
    >>> opt.step(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([0.5, 1.5])
    """

    rule: ClassVar[Rule | None] = None
    __signature__: ClassVar[inspect.Signature]
    _within: Callable[..., Optimizer]  # of a partition, which stands below too: the same among links around it
    _waiting: LeafStates | None  # a state that was loaded before the structure is known
    _torn: bool  # whether a step was interrupted half-way
    _count: np.ndarray  # the completed steps: an array, so that native code counts what it has done

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.rule is not None:
            cls.__signature__ = signature_of(cls.rule)
            cls.__doc__ = docstring_of(cls, cls.rule)

    def __init__(self, *links: Any, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
                 state_dir: Any = None, **hyper: Any) -> None:
        if self.rule is not None:
            links = (self._own_link(links, hyper),)
            hyper = {}
        self._options = Options(engine, nonfinite, threads, state_dir)
        self._options.check(type(self).__name__)
        flat = [link for item in links for link in _links_of(item)]
        self._chain = self._chained(flat)
        given = {f"{name}.{key}": value
                 for name, link in zip(self._chain.names, flat) for key, value in link.settings.items()}
        given.update(self._chain.qualify(hyper))
        self._settings = {q: self._checked(q, value) for q, value in self._chain.settings(given).items()}
        self._refuse_taken_names()
        self._turn = Turn()
        self._chain.stepping  # noqa: B018  traced now, so that a mistake in a formula is an error here
        if not all(rule.built_in for rule in self._chain.rules):
            self._chain.updating  # noqa: B018  too, before what the formula closes over changes
        self._forget()

    def _chained(self, links: Sequence[Link]) -> Chain:
        return Chain(links)

    def _own_link(self, args: tuple[Any, ...], hyper: Mapping[str, Any]) -> Link:
        """The link of a named optimizer: lr may be given by position, all else by name."""
        rule, name = type(self).rule, type(self).__name__
        assert rule is not None
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

    def _refuse_taken_names(self) -> None:
        for name in self._chain.short:
            if hasattr(Optimizer, name):
                raise FormulaError(f"{name!r} is a name of Optimizer itself and no hyper-parameter's: choose another.")

    def _holders(self) -> Mapping[str, Stepping]:
        return {"": self}

    def _divided(self, like: Any) -> tuple[Binding, list[Any]]:
        leaves, treedef = flatten(like)
        return Binding(treedef, paths(treedef), {"": list(range(len(leaves)))}, []), leaves

    # ---- what it knows -----------------------------------------------------------------------------------------------

    @property
    def t(self) -> int:
        """Steps taken. Assigning it sets the count of every leaf too."""
        return int(self._count[0])

    @t.setter
    def t(self, value: int) -> None:
        try:
            t = operator.index(value)
        except TypeError:
            t = -1
        if not 0 <= t <= LAST_STEP or isinstance(value, bool):
            raise ValueError(f"t of {self._chain.title} must be a whole number from 0 to 2**63 - 1. Got {value!r}.")
        self._turn.take(self._recount, t)

    def _recount(self, t: int) -> None:
        self._check_untorn()
        waiting = self._waiting and self._waiting.counted(t)
        with self._changing():
            self._count[0] = t
            if self._group:
                self._group.forget_missed()
            self._waiting = waiting

    @property
    def calls(self) -> int:
        """Calls of `step` and `update` that were not skipped: as many as steps, but with `accumulate`."""
        if self._chain.gathers is None:
            return self.t
        calls, n = self._chain.gathers
        gathered = self.state.get(calls, 0)
        return self.t * int(self._get(n)) + int(gathered)

    @property
    def skipped(self) -> int:
        """Calls left out because a gradient was not finite (nonfinite="skip")."""
        return self._skipped

    @property
    def state(self) -> Mapping[str, Any]:
        """The state by slot name ("m", or "rule.m"): read-only live views, each a tree like the parameters.

        Empty before the first step, which is when the shapes are known. A state that was loaded before the first step
        is shown by leaf path. A slot that starts at the parameter or at the gradient is NaN for a leaf that has not
        stepped yet, having had no gradient.
        """
        trees = self._group.state_trees() if self._group else self._waiting.trees() if self._waiting else {}
        return MappingProxyType(Slots(trees, self._chain))

    @property
    def engine(self) -> str:
        """Which engine runs, and why."""
        if self._group:
            return str(self._group.engine)
        wanted = self._options.engine
        return f"{wanted}: " + ("chosen at the first step" if wanted == "auto" else "asked for")

    @property
    def threads(self) -> int | None:
        """How many threads a step may use; None: as many as `fallline.set_num_threads` says."""
        return self._options.threads

    @property
    def state_dir(self) -> Any:
        """The folder of the files that hold the state; None: it is held in memory."""
        return self._options.state_dir

    @property
    def nonfinite(self) -> str:
        """What a gradient that is not finite does: "raise", "skip" or "propagate"."""
        return self._options.nonfinite

    def rest(self, params: Any) -> Any:
        """The point to report, a new tree, given the parameters that `step` updates.

        Those are the point at which gradients are taken, which some rules have apart from it: Nesterov (θ is at rest),
        Schedule-Free (the average x). For all others it is the parameters, copied. It is computed with the
        hyper-parameters as they are now: exact as long as they have not changed since the last step.

        >>> import fallline as fl
        >>> opt = fl.Nesterov(lr=1.0, momentum=0.5)
        >>> w = opt.step(0.0, 1.0)
        >>> w, opt.rest(w)
        (-1.5, -1.0)
        """
        return self._at(self._chain.rule.rest or copied, params)

    @property
    def averaged(self) -> Any:
        """The average of the parameters that the modifier `average` keeps: a new tree, the caller's own, of their kinds
        and dtypes.

        None stands for a leaf that has had no gradient yet, of which there is none: take the parameter itself. Of a
        state that was loaded and waits for the first step it is NumPy arrays by leaf path, as `state` is.

        Raises AttributeError if the chain keeps no average; before the first step an error that is a ValueError too.

        >>> import fallline as fl
        >>> opt = fl.chain(fl.SGD(1.0), fl.average(0.5))
        >>> opt.step(0.0, 2.0), opt.averaged
        (-2.0, -1.0)
        """
        return self._turn.join(self._averages)

    def _averages(self) -> Any:
        if average not in self._chain.rules:
            raise keeps_none(self._chain.title)
        self._check_untorn()
        if self._group is None:
            return loaded_averages(self._chain.title, {"": (self._chain, self._waiting)})
        return averages(self._group)

    def reset(self) -> None:
        """Forget state and step count; hyper-parameters stay.

        >>> import fallline as fl
        >>> opt = fl.SGD()
        >>> _ = opt.step(1.0, 1.0)
        >>> opt.reset(); opt.t
        0
        """
        self._turn.take(self._forget)

    def fresh(self) -> Optimizer:
        """A copy with the same chain, hyper-parameters and options, and no state.

        >>> import fallline as fl
        >>> fl.SGD(0.1).fresh()
        SGD(lr=0.1)
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._settings = {name: renewed(value) for name, value in self._settings.items()}
        other._turn = Turn()
        other._forget()
        return other

    def __copy__(self) -> Optimizer:
        return copy.deepcopy(self)  # two optimizers that share their state would both be wrong

    def __getstate__(self) -> dict[str, Any]:
        return self._turn.join(self._carried)

    def _carried(self) -> dict[str, Any]:
        """What a copy or a pickle is made of: nothing that this optimizer writes when it steps on."""
        return {**self.__dict__, "_count": self.t, "_binding": None, "_group": self._group and self._group.apart()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._count = np.array([state["_count"]], np.int64)
        self._settings = {name: owned(value) for name, value in self._settings.items()}
        self._waiting = self._waiting and self._waiting.copied()
        if self._group:
            self._group.settle(self._count, self._settings)
            self._binding = Binding.of(self._group)  # even of a part, which goes on alone, without the partition

    def _forget(self) -> None:
        with self._changing():
            self._binding = self._group = self._waiting = None
            self._count = np.zeros(1, np.int64)
            fields.put(self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What SciPy calls: an optimizer is a method of `scipy.optimize.minimize`; see `fallline.minimize`."""
        import fallline  # the loop stands above, and is asked for by those above only

        return fallline._loops.minimize.as_scipy_method(self, *given, **named)

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self._options.given().items()]
        return ", ".join([self._described()[:-1], *options]).replace("(, ", "(") + ")"

    def _described(self) -> str:
        """What makes it again, but for its options."""
        text = self._chain.describe(self._settings)
        return f"Optimizer({text})" if self.rule is None and len(self._chain.rules) == 1 else text

    def _at(self, formula: Callable[..., Any], params: Any) -> Any:
        """A formula of the parameter, state slots and hyper-parameters, at every leaf: a new tree."""
        return self._turn.join(self._evaluate_at, formula, params)

    def _left_alone(self, params: Any) -> list[int]:
        """The leaves, by number, that it does not step: those of which a `mask` or a part of None says so."""
        return []

    def _evaluate_at(self, formula: Callable[..., Any], params: Any) -> Any:
        self._check_ready()
        group = self._group or self._bind(params, "parameter").groups[""]  # that of a part is bound with the others
        return point_at(group, formula, params)


def chain(*links: Any, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
          state_dir: Any = None) -> Optimizer:
    """Modifiers of the gradient, one rule or optimizer, modifiers of the increment, in that order, as one optimizer.

    An optimizer among the links lends its rules and hyper-parameters; it is left alone itself. It may be a `partition`
    or a `mask`: the modifiers act on all its leaves.

    Raises FormulaError for any other order, or if there is not exactly one rule.

    >>> import fallline as fl
    >>> fl.chain(fl.clip_value(1.0), fl.SGD(0.1), fl.weight_decay(0.01))
    chain(clip_value(limit=1.0), SGD(lr=0.1), weight_decay(rate=0.01))
    """
    options = Options(engine, nonfinite, threads, state_dir)
    for place, item in enumerate(links):
        if isinstance(item, Optimizer) and not isinstance(item._chain, Chain):  # but several
            return item._within(links[:place], links[place + 1 :], options)
    return Optimizer(*links, **options._asdict())


def accumulate(n: int, *links: Any, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
               state_dir: Any = None) -> Optimizer:
    """A chain, or an optimizer, that steps at every n-th call only, with the mean of the gradients of these n calls.

    In between the parameters, the chain's state and `t` stand still, and `update` gives increments of -0.0. A gradient
    of None adds nothing; a leaf that had none in n calls is left alone. Schedules count the steps. What a chain has
    behind it acts when it steps.

    Raises ValueError or TypeError if n is no whole number ≥ 1 (one for the chain; `opt.n` may be set before the first
    call), FormulaError for what is no chain.

    >>> import fallline as fl
    >>> opt, w = fl.accumulate(2, fl.SGD(1.0)), 0.0
    >>> for g in (1.0, 3.0, 5.0):
    ...     w = opt.step(w, g)
    >>> w, opt.t, opt
    (-2.0, 1, accumulate(2, SGD(lr=1.0)))
    """
    return chain(rules.accumulate(n=n), *links, engine=engine, nonfinite=nonfinite, threads=threads,
                 state_dir=state_dir)


def _links_of(item: Any) -> list[Link]:
    if isinstance(item, type) and issubclass(item, Optimizer):
        item = item()
    if not isinstance(item, Optimizer):
        return [as_link(item)]
    for name, value in item._options.given().items():
        raise FormulaError(f"{name}={value!r} of {item._chain.title} is for the whole chain: give it to chain(...) "
                           "or the outer Optimizer(...).")
    return item._chain.links(item._settings)
