"""How a step goes, for any optimizer: check, have a plan, run the plan; one call at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.memory import places
from fallline._arrays.trees import holds_none
from fallline._engines.arithmetic import pinned
from fallline._engines.blocks import halved
from fallline._formula.program import ACROSS, INCREMENT
from fallline._messages.suggestions import by_name
from fallline._optimizer.damping import warn_if_damped
from fallline._optimizer.settable import Settable
from fallline._step.binding import Binding
from fallline._step.calls.array import ArrayCall
from fallline._step.calls.host import HostCall
from fallline._step.calls.whole import WholeCall
from fallline._step.group import Group
from fallline._step.numbers import totals_of
from fallline._step.transfer import fill
from fallline._step.turn import held
from fallline.errors import NonFiniteGradient

if TYPE_CHECKING:
    from fallline._step.plan import Plan

__all__ = ["LAST_STEP", "Stepping"]

LAST_STEP = 2**63 - 1
Call = HostCall | ArrayCall
Calls = Mapping[str, Call]


class Stepping(Settable):
    """What `Optimizer` is made of as far as it steps.

    Whoever steps leaves is a holder: a chain with its settings, its count and, once the leaves are known, a group of
    them. An optimizer is the only holder of its own, a partition has one for each part.
    """

    _binding: Binding | None  # the holders' groups, bound to a tree

    @abstractmethod
    def _holders(self) -> Mapping[str, Stepping]:
        """Those who step leaves, by name."""

    @abstractmethod
    def _divided(self, like: Any) -> tuple[Binding, list[Any]]:
        """The leaves of a tree, divided among the holders, and these leaves."""

    # ---- from outside ------------------------------------------------------------------------------------------------

    def step(self, params: Any, grads: Any) -> Any:
        """Step the parameters against the gradients, in place where they can be written.

        Parameters
        ----------
        params: a tree of Python numbers or arrays (NumPy, torch, JAX, ...) of float16, bfloat16, float32, float64,
            complex64 or complex128. What has 16 bits is computed in float32, with state of float32, and rounded once.
            Complex numbers are stepped as pairs of reals.
        grads: a tree of the same structure and shapes; another float dtype is cast, None leaves a leaf alone. That of a
            complex parameter is ∂L/∂Re + i·∂L/∂Im, as torch gives it (`jax.grad` gives its conjugate).

        Returns the parameters: the same arrays where they could be written, new ones (JAX, floats) otherwise.

        Raises ValueError or TypeError for what does not fit, NonFiniteGradient for NaN and infinity; then nothing was
        changed.

        >>> import numpy as np, fallline as fl
        >>> opt, w = fl.SGD(lr=0.1), np.ones(2)
        >>> opt.step(w, np.array([1.0, -1.0])) is w, w
        (True, array([0.9, 1.1]))
        """
        binding = self._binding
        if binding is not None and not self._torn:
            take = binding.at_once.get(("x", False))  # one native call, which looks itself whose turn it is
            if take is not None and take(params, grads, None):
                return params
        return self._turn.take(self._step, params, grads)

    def _step(self, params: Any, grads: Any) -> Any:
        taken = self._quickly("x", params, grads, None) or self._mended(params, grads)
        if taken is not None and taken is not False:
            return params if taken is True else taken
        self._check_ready()
        if params is None:
            raise TypeError(f"step of {self._chain.title} needs the parameters: opt.step(params, grads). Got None.")
        binding = self._bind(params, "parameter")
        xs = binding.leaves(params, "parameter")
        gs = binding.leaves(grads, "gradient")
        return self._take_checked(binding, "x", xs, gs, xs, params)

    def update(self, grads: Any, *misplaced: Any, params: Any = None, out: Any = None) -> Any:
        """The increment: what to add to the parameters. State and t advance; the parameters are left alone.

        Parameters
        ----------
        grads: a tree of arrays or Python floats.
        params: the parameters, a tree of the same structure; needed by chains that read them (`weight_decay`, `l2`).
        out: a tree of writable arrays to hold the increment. Both are taken by name alone.

        Returns a new tree shaped like `grads` (None where the gradient is None), or `out`. An increment of 0 is -0.0.
        In float16 and bfloat16, `w += opt.update(g)` rounds twice, the increment and the sum, where `step` rounds once.

        >>> import numpy as np, fallline as fl
        >>> fl.SGD(lr=0.5).update({"W": np.array([1.0, 2.0]), "b": 4.0})
        {'W': array([-0.5, -1. ]), 'b': -2.0}
        """
        if misplaced:
            raise TypeError(by_name(misplaced))
        binding = self._binding
        if binding is not None and not self._torn:
            take = binding.at_once.get((INCREMENT, out is not None))  # as for a step
            if take is not None and (new := take(params, grads, out)) is not None and new is not False:
                return new if out is None else out
        return self._turn.take(self._update, grads, params, out)

    def _update(self, grads: Any, params: Any, out: Any) -> Any:
        new = self._quickly(INCREMENT, params, grads, out)
        if new is not None and new is not False:
            return new if out is None else out
        self._check_ready()
        if grads is None:
            raise TypeError(f"update of {self._chain.title} needs a gradient: opt.update(grads). Got None.")
        if params is None and self._chain.needs_parameters:
            raise TypeError(f"update of {self._chain.title} needs the parameters: opt.update(grads, params=w).")
        if params is None and self._binding is None and holds_none(grads):
            raise ValueError(f"The first update of {self._chain.title} cannot know a leaf whose gradient is None: pass "
                             "the parameters too, opt.update(grads, params=w).")
        binding = self._bind(grads, "gradient") if params is None else self._bind(params, "parameter")
        gs = binding.leaves(grads, "gradient")
        for k, g in enumerate(gs) if params is None else ():
            binding.check_library(k, g, "gradient")
        xs = None if params is None else binding.leaves(params, "parameter")
        targets = None if out is None else binding.leaves(out, "out")
        return self._take_checked(binding, INCREMENT, xs, gs, targets, out)

    # ---- quickly -----------------------------------------------------------------------------------------------------

    def _quickly(self, into: str, params: Any, grads: Any, out: Any) -> Any:
        """Take a step that is like the last one, if it is no single native call."""
        binding = None if self._torn else self._binding
        look = None if binding is None else binding.look(into, out is not None)
        return look.take(params, grads, out) if look is not None and not look.is_atomic else None

    def _mended(self, params: Any, grads: Any) -> Any:
        """Take a step that is like the last one but for where parameters lie, or what gradients share with them."""
        binding = None if self._torn else self._binding
        look = None if binding is None else binding.look("x", False)
        return None if look is None else look.mend(params, grads)

    # ---- carefully ---------------------------------------------------------------------------------------------------

    def _bind(self, like: Any, what: str) -> Binding:
        """The binding, a new one if there is none, which is kept once a call has succeeded."""
        if self._binding is not None:
            return self._binding
        binding, leaves = self._divided(like)
        self._check_binding(binding)
        groups = {}
        for name, holder in self._holders().items():
            groups[name] = holder._bound_to(binding.tree(name, leaves), what, holder._settings)
            if holder._waiting is not None:
                fill(groups[name], holder._waiting)
        binding.bind(groups)
        return binding

    def _check_binding(self, binding: Binding) -> None:
        """Raise ValueError if leaves are not divided as in a state that waits for them."""

    def _bound_to(self, like: Any, what: str, settings: Mapping[str, Any]) -> Group:
        return Group(self._chain, settings, like, what, self._options, self._count)

    def _check_ready(self) -> None:
        self._check_untorn()
        if self.t == LAST_STEP:
            raise OverflowError(f"{self._chain.title} has taken 2**63 - 1 steps, the last that it can count: set opt.t "
                                "to a smaller number.")

    def _take_checked(self, binding: Binding, into: str, xs: Any, gs: Any, targets: Any, tree: Any) -> Any:
        """Take a step of leaves that are as they should be."""
        with pinned():
            several = len(binding.groups) > 1  # a single one looks at its own arrays
            arrays = [*gs, *(xs or ()), *((into != "x" and targets) or ())] if several and self._asks(gs) else []
            gs, before = binding.set_apart(into, xs, gs, targets), places(arrays)
            still = list(targets) if into == "x" else binding.still(gs, targets)
            calls = {name: self._call(name, binding, into, xs, gs, targets) for name in binding.groups}
            for call in calls.values():
                call.arrange()
            plan = binding.plan(calls)
            if (plan is None or not plan.is_finite()) and self._skips(binding, calls):
                return self._nothing(binding, calls, still, into, targets, tree)
            for name, call in calls.items():
                call.ask(int(binding.groups[name].count[0]))
            if places(arrays) != before:
                raise ValueError(f"An array was resized while a schedule of {self._chain.title} was asked: parameters, "
                                 "gradients and outputs must stay as they are in a call. Nothing was changed.")
            self._warn(calls)
            results = self._run(binding, calls, plan)
            if results is None:  # the sums of a reading were not finite
                self._skips(binding, calls)
                return self._nothing(binding, calls, still, into, targets, tree)
            if plan is not None:
                self._look_ahead(binding, calls, plan, (xs, gs, None if into == "x" else targets))
            return self._result(binding, results, still, into, targets, tree)

    def _nothing(self, binding: Binding, calls: Calls, still: list[Any], into: str, targets: Any, tree: Any) -> Any:
        """What comes of a call that was skipped."""
        if into == "x":
            return tree
        return self._result(binding, {name: call.nothing() for name, call in calls.items()}, still, into, targets, tree)

    @staticmethod
    def _result(binding: Binding, results: Mapping[str, Any], still: list[Any], into: str, targets: Any,
               tree: Any) -> Any:
        """The tree that comes back: the one that was written to, or a new one."""
        if into != "x" and targets is not None:
            binding.put_still(targets)
        if targets is not None and all(own is None for own in results.values()):
            return tree
        return binding.treedef.unflatten(binding.merged(results, still))

    def _asks(self, gs: Sequence[Any]) -> bool:
        """Whether to prepare a call runs code of others: schedules, and libraries whose gradients are converted."""
        scheduled = any(type(s) is not float for holder in self._holders().values() for s in holder._settings.values())
        return scheduled or any(type(g) is not np.ndarray and g is not None for g in gs)

    def _call(self, name: str, binding: Binding, into: str, *trees: Sequence[Any] | None) -> Call:
        """The call of a holder, with what was given checked and nothing changed."""
        group = binding.groups[name]
        xs, gs, targets = (binding.own(name, leaves) for leaves in trees)
        chain = group.chain
        kind = HostCall if group.engine.in_memory else ArrayCall
        if group.holds():
            return kind(group, chain.holding(into), into, xs, gs, targets)
        if chain.gathers:
            gs = group.completed(gs)
        program = chain.stepping if into == "x" else chain.updating
        kind = WholeCall if chain.rule.whole_leaf else kind
        return kind(group, program, into, xs, gs, targets)

    def _skips(self, binding: Binding, calls: Calls) -> bool:
        """Whether to skip the call for gradients that are not finite; raises under nonfinite="raise"."""
        bad = [found for call in calls.values() for found in call.find_non_finite()]
        if not bad:
            return False
        bad.sort(key=lambda found: binding.paths.index(found[0]))
        if self._options.nonfinite == "raise":
            said = "; ".join(f"{path or 'the gradient'} has {kinds}" for path, kinds in bad[:5])
            raise NonFiniteGradient(f"Gradient not finite: {said}{' ...' if len(bad) > 5 else ''}. Nothing changed; "
                                    'nonfinite="skip" goes on without such steps.', tuple(path for path, _ in bad))
        self._skipped += 1
        return True

    def _warn(self, calls: Calls) -> None:
        """Say at the very first step if its gradients are damped."""
        first = all(holder.t == 0 and holder._waiting is None for holder in self._holders().values())
        if first and not any(call.holds for call in calls.values()):
            warn_if_damped([(call.group, call.gradients) for call in calls.values()])

    def _run(self, binding: Binding, calls: Calls, plan: Plan | None) -> Mapping[str, Any] | None:
        """Run the calls: by a plan, in one native call, or one after the other; None if that finds a gradient that is
        not finite, and nothing was changed."""
        if plan is None:
            _prepare(binding, calls)
        self._keep_settings(binding)
        if plan is not None:
            host = [call for call in calls.values() if isinstance(call, HostCall)]
            plan.take_over(host)
            return {name: call.finish() for name, call in zip(calls, host)} if self._commit(binding, plan.run, True) \
                else None

        def run() -> Mapping[str, Any]:
            return {name: call.run() for name, call in calls.items()}

        brief = binding.is_small() and all(call.group.engine.plans for call in calls.values())
        commit = partial(self._commit, binding, run, False)
        return held(commit) if brief else commit()

    def _keep_settings(self, binding: Binding) -> None:
        """Have groups that are new know what a schedule has set meanwhile; refused, if at all, before any steps."""
        for name, holder in self._holders().items():
            if binding.groups[name].given is not holder._settings:
                binding.groups[name].resolve(holder._settings)

    def _commit(self, binding: Binding, act: Callable[[], Any], atomic: bool) -> Any:
        """Act, and have the binding; an interrupt leaves it done or not begun if that is one native call (`atomic`),
        else a torn optimizer."""
        holders, bound = self._holders(), self._binding
        before = [holder.t for holder in holders.values()]
        self._binding, self._torn = binding, not atomic
        for name, holder in holders.items():
            holder._group = binding.groups[name]
        result = False
        try:
            result = act()
        finally:
            if atomic and result is False and bound is None and before == [holder.t for holder in holders.values()]:
                self._unbind()
        self._torn = False
        for holder in holders.values() if result is not False else ():
            holder._waiting = None
        return result

    def _unbind(self) -> None:
        """Know the leaves no longer."""
        self._binding = None
        for holder in self._holders().values():
            holder._group = None

    def _look_ahead(self, binding: Binding, calls: Calls, plan: Plan, trees: Sequence[Any]) -> None:
        """Have the next call looked at quickly."""
        plan.revalue()
        settled = all(call.settled for call in calls.values() if isinstance(call, HostCall))
        with suppress(MemoryError, OSError, RuntimeError):  # for want of room: the step is taken
            binding.watch(plan, trees, self._turn.taken, settled)


def _prepare(binding: Binding, calls: Calls) -> None:
    """Prepare the calls of all groups, each with its own totals and with those of all."""
    for level in range(max((len(call.readings) for call in calls.values()), default=0)):
        reading = {name: call.readings[level].totals for name, call in calls.items() if level < len(call.readings)}
        sums = {name: calls[name].read(calls[name].readings[level]) for name in reading}
        across = {name: own[:, [k for k, total in enumerate(reading[name]) if total.over == ACROSS]]
                  for name, own in sums.items()}
        of_all = halved(binding.rows(across, max(own.shape[1] for own in across.values()))).tolist()
        for name, own in sums.items():
            calls[name].know(totals_of(reading[name], own, of_all))
    for call in calls.values():
        call.prepare()
