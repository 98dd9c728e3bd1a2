"""Optimizer: a chain of rules with its hyper-parameters and state; the public interface of everything that steps."""

from __future__ import annotations

import copy
import inspect
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from fallline._arrays.leaves import number
from fallline._arrays.trees import copy as copied
from fallline._engines.options import Options
from fallline._formula.chain import Chain, as_link
from fallline._formula.notation.notebook import Drawn
from fallline._formula.program import INCREMENT
from fallline._formula.rule import Link, Rule
from fallline._formula.settings import anew
from fallline._messages.suggestions import by_name
from fallline._optimizer.describing import Docstring, Slots, option, own_link, signature_of
from fallline._optimizer.division import Whole
from fallline._optimizer.holder import Holder
from fallline._optimizer.keeping import as_dialect, load, of_dialect, save
from fallline._optimizer.points import at, averaged
from fallline._optimizer.settable import Settable
from fallline._optimizer.stepping import LAST_STEP, Stepper
from fallline._state.state_dict import LoadReport
from fallline.errors import FormulaError

__all__ = ["Optimizer"]


class Optimizer(Settable, Drawn):
    """A chain of rules with hyper-parameters and state.

    Parameters
    ----------
    *links: rules (`fallline.rule`), modifiers and optimizers, in order; see `fallline.chain`.
    engine: "auto", "reference" (NumPy), "native" (LLVM) or "eager" (arrays of any library).
    nonfinite: what to do with NaN or infinity in a gradient: "raise" NonFiniteGradient, "skip" the call (counted in
        `skipped`), or "propagate" (no check).
    threads: the number of threads the native engine may use for a step; None: see `fallline.set_num_threads`.
    state_dir: a folder for scratch files that hold the state instead of memory, so that it can be larger than memory.
        They are deleted with the optimizer and are no checkpoint. The first step allocates them, or raises OSError.
    **hyper: hyper-parameters by name, or by "rule.name" if a name is ambiguous: a number, a schedule (a function of the
        number of completed steps), or a tree of these shaped like the parameters.

    Raises TypeError for unknown names (listing the known ones), ValueError for values out of range, FormulaError if the
    links are no chain.

    >>> import numpy as np, fallline as fl
    >>> opt = fl.Optimizer(fl.rule(lambda g, *, lr=0.1: -lr * g), lr=0.5)
    >>> opt.step(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([0.5, 1.5])
    """

    rule: ClassVar[Rule | None] = None
    __signature__: ClassVar[inspect.Signature]
    _stepper: Stepper

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.rule is not None:
            cls.__signature__ = signature_of(cls.rule)
            cls.__doc__ = Docstring()  # type: ignore[assignment]

    def __init__(self, *links: Any, engine: str = "auto", nonfinite: str = "raise", threads: int | None = None,
                 state_dir: Any = None, **hyper: Any) -> None:
        if self.rule is not None:
            links = (own_link(type(self).__name__, self.rule, links, hyper),)
            hyper = {}
        options = Options(engine, nonfinite, threads, state_dir)
        options.check(type(self).__name__)
        flat = [link for item in links for link in _links_of(item)]
        chain = self._chained(flat)
        holder = Holder.of(chain, flat, hyper)
        for name in chain.short:
            if hasattr(Optimizer, name):
                raise FormulaError(f"{name!r} is a name of Optimizer itself and no hyper-parameter's: choose another.")
        chain.stepping  # noqa: B018  traced now, so that a mistake in a formula is an error here
        if not all(rule.built_in for rule in chain.rules):
            chain.updating  # noqa: B018  too, before what the formula closes over changes
        self._chain, self._stepper = chain, Stepper(chain, {"": holder}, Whole(), options)

    def _chained(self, links: Sequence[Link]) -> Chain:
        return Chain(links)

    def step(self, params: Any, grads: Any) -> Any:
        """Update the parameters by one step, in place if they are writable.

        Parameters
        ----------
        params: a tree of Python numbers or arrays (NumPy, torch, JAX, ...) of float16, bfloat16, float32, float64,
            complex64 or complex128. 16-bit parameters are computed in float32, with float32 state, and rounded once.
            Complex numbers are stepped as pairs of reals.
        grads: a tree of the same structure and shapes. Another float dtype is cast, None leaves a leaf alone. The
            gradient of a complex parameter is ∂L/∂Re + i·∂L/∂Im, as in torch (`jax.grad` returns its conjugate).

        Returns the parameters: the same arrays if they are writable, otherwise new ones (JAX, floats).

        Raises ValueError or TypeError if the trees do not fit, NonFiniteGradient for NaN and infinity; nothing is
        changed then.

        >>> import numpy as np, fallline as fl
        >>> opt, w = fl.SGD(lr=0.1), np.ones(2)
        >>> opt.step(w, np.array([1.0, -1.0])) is w, w
        (True, array([0.9, 1.1]))
        """
        stepper = self._stepper
        binding = stepper.binding
        if binding is not None and not stepper.torn:
            take = binding.at_once.get(("x", False))  # one native call, which looks itself whose turn it is
            if take is not None and take(params, grads, None):
                return params
        return stepper.turn.take(stepper.step, params, grads)

    def update(self, grads: Any, *misplaced: Any, params: Any = None, out: Any = None) -> Any:
        """Return the increment to add to the parameters. State and t advance; the parameters do not change.

        Parameters
        ----------
        grads: a tree of arrays or Python floats.
        params: the parameters, a tree of the same structure; needed by chains that read them (`weight_decay`, `l2`).
        out: a tree of writable arrays for the increment. `params` and `out` are keyword-only.

        Returns a new tree shaped like `grads` (None where the gradient is None), or `out`. An increment of 0 is -0.0.
        In float16 and bfloat16, `w += opt.update(g)` rounds twice, the increment and the sum; `step` rounds once.

        >>> import numpy as np, fallline as fl
        >>> fl.SGD(lr=0.5).update({"W": np.array([1.0, 2.0]), "b": 4.0})
        {'W': array([-0.5, -1. ]), 'b': -2.0}
        """
        if misplaced:
            raise TypeError(by_name(misplaced))
        stepper = self._stepper
        binding = stepper.binding
        if binding is not None and not stepper.torn:
            take = binding.at_once.get((INCREMENT, out is not None))  # as for a step
            if take is not None and (new := take(params, grads, out)) is not None and new is not False:
                return new if out is None else out
        return stepper.turn.take(stepper.update, grads, params, out)

    def flush(self, params: Any) -> Any:
        """Step with the gradients that `accumulate` has gathered so far; do nothing if there are none.

        This ends the window: `calls` counts as if it had been complete. Returns the parameters and raises errors like
        `step`.

        >>> import fallline as fl
        >>> opt = fl.accumulate(3, fl.SGD(0.5))
        >>> w = opt.step(opt.step(0.0, 1.0), 3.0)
        >>> opt.flush(w), opt.t
        (-1.0, 1)
        """
        return self._stepper.turn.take(self._stepper.flush, params)

    def hear(self, value: float) -> None:
        """Report a value, such as the loss, to schedules that depend on it (`fallline.schedules.plateau`).

        The loss can be of the whole data or of one step. `descend` and `minimize` do this at every step.

        Raises TypeError if the value is no real number, ValueError if there is no such schedule.

        >>> import fallline as fl
        >>> opt = fl.SGD(fl.schedules.plateau(0.1, factor=0.5, patience=0))
        >>> opt.hear(2.0); opt.hear(2.0); opt.lr(opt.t)
        0.05
        """
        value = number(value, f"The value that {self._chain.title} hears must be a real number")
        self._stepper.turn.take(self._stepper.hear, value)

    @property
    def t(self) -> int:
        """The number of steps taken. Assigning it sets the count of every leaf too."""
        return self._stepper.t

    @t.setter
    def t(self, value: int) -> None:
        try:
            t = operator.index(value)
        except TypeError:
            t = -1
        if not 0 <= t <= LAST_STEP or isinstance(value, bool):
            raise ValueError(f"t of {self._chain.title} must be a whole number from 0 to 2**63 - 1. Got {value!r}.")
        self._stepper.turn.take(self._stepper.recount, t)

    @property
    def calls(self) -> int:
        """The number of calls of `step` and `update` that were not skipped: equal to `t`, except with `accumulate`."""
        return max(holder.calls for holder in self._stepper.holders.values())

    @property
    def skipped(self) -> int:
        """The number of calls skipped because a gradient was not finite (nonfinite="skip")."""
        return self._stepper.skipped

    @property
    def state(self) -> Mapping[str, Any]:
        """The state by slot name ("m", or "rule.m"): read-only live views, each a tree like the parameters.

        It is empty before the first step, as the shapes are not known yet. A state loaded before the first step is
        shown by leaf path. A slot that starts at the parameter or at the gradient is NaN for a leaf that has had no
        gradient yet.
        """
        return MappingProxyType(Slots(self._stepper.holders[""].trees(), self._chain))

    @property
    def engine(self) -> str:
        """The engine that runs, and why; by part if they differ."""
        return self._stepper.engine

    threads = option("threads", "How many threads a step may use; None: as many as `fallline.set_num_threads` says.")
    state_dir = option("state_dir", "The folder of the files that hold the state; None: it is held in memory.")
    nonfinite = option("nonfinite", "What a gradient that is not finite does: \"raise\", \"skip\" or \"propagate\".")

    def rest(self, params: Any) -> Any:
        """Return the point to report, as a new tree, given the parameters that `step` updates.

        Some rules take gradients at another point than the one to report: Nesterov (which reports θ) and Schedule-Free
        (which reports the average x). All others return a copy of the parameters. The point is computed with the
        current hyper-parameters, so it is exact only if they have not changed since the last step.

        >>> import fallline as fl
        >>> opt = fl.Nesterov(lr=1.0, momentum=0.5)
        >>> w = opt.step(0.0, 1.0)
        >>> w, opt.rest(w)
        (-1.5, -1.0)
        """
        return self._stepper.turn.join(at, self._stepper, lambda chain: chain.rule.rest or copied, params)

    @property
    def averaged(self) -> Any:
        """The average of the parameters kept by the modifier `average`: a new tree with their kinds and dtypes.

        It is None for a leaf that has had no gradient yet: use the parameter itself. If a state was loaded and no step
        taken yet, it is NumPy arrays by leaf path, like `state`.

        Raises AttributeError if the chain keeps no average; before the first step, an error that is also a ValueError.

        >>> import fallline as fl
        >>> opt = fl.chain(fl.SGD(1.0), fl.average(0.5))
        >>> opt.step(0.0, 2.0), opt.averaged
        (-2.0, -1.0)
        """
        return self._stepper.turn.join(averaged, self._stepper)

    def state_dict(self, *, dialect: str | None = None) -> dict[str, Any]:
        """Return the state, step counts and hyper-parameters as plain data: dicts, numbers and copies of the arrays.

        With `dialect` "torch", "keras" or "optax", return them in the form of that library.

        The keys are "format"; "rules", in order, each "built in" or with its formula's fingerprint; "t", "skipped";
        "hyper", with functions by name, and fallline's schedules as printed; "leaves", by path the shape, dtype and
        number of steps (None before the first step); "state", by slot and path. A path joins the keys with "/", as in
        "layer1/W".

        Raises TornOptimizer after an interrupted step.

        >>> import numpy as np, fallline as fl
        >>> opt = fl.Momentum(lr=0.1)
        >>> _ = opt.step({"W": np.ones(2)}, {"W": np.ones(2)})
        >>> opt.state_dict()["state"]
        {'velocity': {'W': array([-0.1, -0.1])}}
        """
        return self._stepper.turn.join(self._stepper.plain if dialect is None else as_dialect(self, dialect))

    def load_state_dict(self, d: Any, *, dialect: str | None = None, rename: Callable[[str], str] | None = None,
                        strict: bool = True) -> LoadReport | None:
        """Load the state, step counts and hyper-parameters returned by `state_dict`, as copies.

        With `dialect`, load a state of another library: torch's `optimizer.state_dict()`, Keras's `optimizer.variables`
        by path, or optax's state. The optimizer must have a formula of that library, by whatever name.

        `rename` is a function from a leaf's path in the state to its path here. With `strict=False`, only leaves that
        both have are loaded, and a `LoadReport` lists those `missing` in the state, which keep their own, and those
        `left_over`. The leaves must be known for that: after a step, or `adapt(params)`.

        Leaves are matched by path, whatever their order. Before the first step they are not known yet, so the first
        step checks the state. Hyper-parameters are restored (as in torch), including fallline's schedules. Your own
        functions are not: those of this optimizer must match the saved ones by name, and the fields of dataclasses and
        arguments of partials by value.

        Raises ValueError or TypeError, naming what does not fit; nothing is changed then.

        >>> import fallline as fl
        >>> opt, other = fl.Adam(), fl.Adam(0.5)
        >>> w = opt.step(1.0, 1.0)
        >>> other.load_state_dict(opt.state_dict())
        >>> other.t, other.step(w, 1.0) == opt.step(w, 1.0)
        (1, True)
        >>> larger = fl.Adam()
        >>> larger.adapt({"a": 1.0, "b": 1.0})
        >>> larger.load_state_dict(opt.state_dict(), rename=lambda path: "a", strict=False)
        LoadReport(missing=('b',), left_over=())
        """
        state = d if dialect is None else of_dialect(self, d, dialect)
        report = self._stepper.turn.take(self._stepper.load_copies, state, rename, strict)
        return None if strict else report

    def adapt(self, params: Any, **hyper: Any) -> None:
        """Continue with another tree of parameters, with leaves added or removed (compare torch's add_param_group).

        A leaf that keeps its path keeps its state and step count; a new one starts at its own step 1; others are
        forgotten. If the parameters now have another float dtype, so does the state. A path in a list is an index, so
        removing any but the last item of a list moves the items after it. Pass hyper-parameters that are trees in their
        new form.

        Raises ValueError or TypeError, naming the leaf, if one changed its shape, is complex where it was real, or has
        state that is too large for the new dtype; nothing is changed then.

        >>> import fallline as fl
        >>> opt = fl.Momentum(lr=1.0)
        >>> w = opt.step({"a": 0.0}, {"a": 1.0})
        >>> opt.adapt({**w, "b": 0.0})
        >>> opt.step({**w, "b": 0.0}, {"a": 1.0, "b": 1.0})
        {'a': -2.9, 'b': -1.0}
        """
        self._stepper.turn.take(self._stepper.adapt, params, hyper)

    def save(self, path: str | os.PathLike[str], params: Any = None) -> None:
        """Save the state, and the parameters if given, to one safetensors file, replacing an existing one.

        All or nothing: the old file stays until the new one is complete and on disk. A link is followed, permission
        bits are kept. Arrays of any library are written by leaf path ("params/W", "state/m/W"). Parameters come back in
        dicts, lists and tuples; for other containers see `fallline.load`. Rules are recorded by name, your own also by
        a fingerprint of their formula (whole-leaf rules: of their signature). fallline's schedules are recorded
        completely, other functions by name.

        Raises CheckpointError if the file cannot be written, ValueError or TypeError for parameters that are not this
        optimizer's or that a file cannot hold, TornOptimizer after an interrupted step.

        >>> import os, tempfile, fallline as fl
        >>> opt = fl.Adam()
        >>> w = opt.step(1.0, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     opt.save(os.path.join(folder, "run.safetensors"), w)
        ...     os.listdir(folder)
        ['run.safetensors']
        """
        save(self._stepper, self._built(), path, params)

    def load(self, path: str | os.PathLike[str], *, rename: Callable[[str], str] | None = None, strict: bool = True
             ) -> Any:
        """Load the state from a file that `save` wrote, as `load_state_dict` does; return its parameters, or None.

        With `strict=False` it returns the parameters as in the file, and the `LoadReport`. `fallline.load` makes the
        optimizer too; see there for the types of the parameters.

        Raises FileNotFoundError if there is no file, CheckpointError if anything is wrong with it or it belongs to
        another optimizer; nothing is changed then.

        >>> import os, tempfile, fallline as fl
        >>> opt, other = fl.Adam(), fl.Adam()
        >>> w = opt.step(1.0, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     opt.save(os.path.join(folder, "run.safetensors"), w)
        ...     v = other.load(os.path.join(folder, "run.safetensors"))
        >>> v == w, other.t
        (True, 1)
        """
        params, report = load(self._stepper, path, rename, strict)
        return params if strict else (params, report)

    def _built(self) -> dict[str, Any]:
        """How to make this optimizer again, beyond its settings; a folder for scratch files is this machine's alone."""
        (holder,) = self._stepper.holders.values()
        links = [[link.rule.name, link.title] for link in holder.chain.links(holder.settings)]
        return {"class": type(self).__name__, "links": links, "options": self._stepper.options.saved()}

    def reset(self) -> None:
        """Clear the state, the step count and the values reported to schedules; keep the hyper-parameters.

        >>> import fallline as fl
        >>> opt = fl.SGD()
        >>> _ = opt.step(1.0, 1.0)
        >>> opt.reset(); opt.t
        0
        """
        self._stepper.turn.take(self._stepper.reset)

    def fresh(self) -> Optimizer:
        """Return a copy with the same chain, hyper-parameters and options, and no state; its schedules start afresh.

        >>> import fallline as fl
        >>> fl.SGD(0.1).fresh()
        SGD(lr=0.1)
        """
        other = object.__new__(type(self))
        holders = {name: holder.fresh() for name, holder in self._stepper.holders.items()}
        other.__dict__.update(self.__dict__, _stepper=self._stepper.fresh(holders))
        return other

    def __copy__(self) -> Optimizer:
        return copy.deepcopy(self)  # two optimizers that share their state would both be wrong

    def __getstate__(self) -> dict[str, Any]:
        return self._stepper.turn.join(self._carried)

    def _carried(self) -> dict[str, Any]:
        """What a copy or a pickle is made of: nothing that this optimizer writes when it steps on."""
        holders = {name: holder.apart() for name, holder in self._stepper.holders.items()}
        return {**self.__dict__, "_stepper": self._stepper.apart(holders)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for holder in self._stepper.holders.values():
            holder.settle()
        self._stepper.bind_again()

    def __sklearn_clone__(self) -> Optimizer:
        return self.fresh()

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What SciPy calls: an optimizer is a method of `scipy.optimize.minimize`; see `fallline.minimize`."""
        import fallline  # the loop stands above, and is asked for by those above only

        return fallline._loops.minimize.as_scipy_method(self, *given, **named)

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self._stepper.options.given().items()]
        return ", ".join([self._described()[:-1], *options]).replace("(, ", "(") + ")"

    def _sections(self) -> list[tuple[str, Link]]:
        (holder,) = self._stepper.holders.values()
        links = holder.chain.links(holder.settings)
        return [((link.title or link.rule.name) * (len(links) > 1), link) for link in links]

    @property
    def _title(self) -> str:
        """What tables call it."""
        return str(self._chain.title)

    def _described(self) -> str:
        """What makes it again, but for its options."""
        (holder,) = self._stepper.holders.values()
        text = holder.chain.describe(holder.settings)
        return f"Optimizer({text})" if self.rule is None and len(holder.chain.rules) == 1 else text


def _links_of(item: Any) -> list[Link]:
    if isinstance(item, type) and issubclass(item, Optimizer):
        item = item()
    if not isinstance(item, Optimizer):
        return [as_link(item)]
    for name, value in item._stepper.options.given().items():
        raise FormulaError(f"{name}={value!r} of {item._chain.title} is for the whole chain: give it to chain(...) "
                           "or the outer Optimizer(...).")
    holder, *_ = item._stepper.holders.values()
    return item._chain.links({name: anew(value) for name, value in holder.settings.items()})  # or several refuse it
