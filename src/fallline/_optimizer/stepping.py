"""How a step goes, for any optimizer: check, have a plan, run the plan; one call at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fallline._arrays.memory import places
from fallline._arrays.trees import former_paths, holds_none
from fallline._engines.arithmetic import pinned
from fallline._engines.options import Options
from fallline._formula.program import INCREMENT
from fallline._messages.warned import warn
from fallline._optimizer.division import Checked, Whole, telling
from fallline._optimizer.holder import Holder
from fallline._state import fields
from fallline._state.state_dict import LeafStates, LoadReport, as_now
from fallline._step.binding import Binding
from fallline._step.calls.alone import ALONE, Alone, Skipped
from fallline._step.calls.array import ArrayCall
from fallline._step.calls.damping import warn_if_damped
from fallline._step.calls.host import HostCall
from fallline._step.calls.whole import WholeCall
from fallline._step.group import Group
from fallline._step.turn import Turn, held
from fallline.errors import NonFiniteGradient, TornOptimizer

if TYPE_CHECKING:
    from fallline._step.plan import Plan

__all__ = ["LAST_STEP", "Stepper"]

LAST_STEP = 2**63 - 1
Call = HostCall | ArrayCall
Calls = Mapping[str, Call]


class Stepper:
    """Holders, by name, that step a tree together, as `division` says which leaf is whose; and all that a call changes.

    An optimizer has one holder of its own, a partition one for each part. `binding` has their groups once the leaves
    are known. What is done at a time that others wait for, or is refused, goes through `turn`; `torn` says whether an
    interrupt left something half-way. The fields of a state (`fallline._state.fields`) are attributes. `others` take
    part in each call, if there are any.
    """

    skipped: int

    has_begun = False  # to step, in this process

    def __init__(self, chain: Any, holders: Mapping[str, Holder], division: Whole, options: Options,
                 others: Alone = ALONE) -> None:
        self.chain, self.holders, self.division, self.options = chain, holders, division, options
        self.others = others
        self.turn = Turn()
        self.forget()

    # ---- what changes it ---------------------------------------------------------------------------------------------

    @property
    def t(self) -> int:
        """The steps taken: those of the holder that took most; others may gather gradients meanwhile."""
        return max(holder.t for holder in self.holders.values())

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """For what an interrupt must not leave half-way: it leaves a torn optimizer, as any error does."""
        self.torn = True
        yield
        self.torn = False

    def check_whole(self) -> None:
        """Raise TornOptimizer if an interrupt left something half-way."""
        if self.torn:
            raise TornOptimizer("A step of this optimizer was interrupted half-way, so its state and parameters are "
                                "between two steps: load a state, or call opt.reset(), and start from known "
                                "parameters.")

    def forget(self) -> None:
        """Begin anew, with the same settings."""
        with self.changing():
            for holder in self.holders.values():
                holder.forget()
            self.binding: Binding | None = None
            fields.put(self, fields.starts())

    def reset(self) -> None:
        """Begin anew, schedules too."""
        self.forget()
        for holder in self.holders.values():
            for schedule in holder.hearing():
                schedule._forget()

    @property
    def engine(self) -> str:
        """Which engine runs, and why; by part where they differ."""
        wanted = self.options.engine
        coming = f"{wanted}: " + ("chosen at the first step" if wanted == "auto" else "asked for")
        notes = {name: str(holder.group.engine) if holder.group else coming for name, holder in self.holders.items()
                 if self.binding is None or self.binding.positions[name]}
        if len(set(notes.values())) > 1:
            return "; ".join(f"{name}: {note}" for name, note in notes.items())
        return next(iter(notes.values()), "none: no leaf is stepped")

    @property
    def group_of_part(self) -> Group | None:
        """Of an optimizer that is a part of a partition the group that is bound with the others'; else None."""
        return self.holders[""].group if self.binding is None and "" in self.holders else None

    def record(self) -> dict[str, Any]:
        """The state dictionary, live."""
        self.check_whole()
        return self.division.record(self.holders, fields.of(self))

    def plain(self) -> dict[str, Any]:
        """See `Optimizer.state_dict`."""
        return self.division.plain(self.record())

    def load_copies(self, d: Any, rename: Callable[[str], str] | None, strict: bool) -> LoadReport:
        """See `Optimizer.load_state_dict`."""
        state = self.division.checked(d, self.holders).renamed(rename, self.holders)
        return self.load(state if self._takes_now(state) else state.copied(), strict)

    def load(self, state: Checked, strict: bool = True) -> LoadReport:
        """Take over a state that was checked, its arrays too where they have to wait for leaves; unless it is `strict`
        leaves here may lack in it, or have no place here."""
        now, report = self._takes_now(state), LoadReport((), ())
        if not (strict or now):
            raise ValueError(f"strict=False compares a state with the leaves of {self.chain.title}, which are not "
                             "known before the first step: call opt.adapt(params) first.")
        if now and self.binding is not None:
            state = state.as_now(former_paths(self.binding.treedef))
            theirs, ours = state.leaves(), self.binding.stepped()
            report = LoadReport(tuple(path for path in ours if path not in theirs),
                                tuple(path for path in theirs if path not in ours))
            self.check_division(self.binding, state, [path for path in self.binding.paths if strict or path in theirs])
        for name, own in state.own.items() if now else ():
            with telling(name):
                self.holders[name].check_loads(own, strict)
        with self.changing():
            if not now:
                self._unbind()
            for name, own in state.own.items():
                self.holders[name].load(own)
            fields.put(self, state.fields)
        return report

    def _takes_now(self, state: Checked) -> bool:
        """Whether a state can be put in place, and does not have to wait for the leaves to be known."""
        return all(holder.group is not None for holder in self.holders.values()) and all(
            own.states is not None for own in state.own.values())

    def check_division(self, divided: Binding, state: Checked, paths: Sequence[str] | None = None) -> None:
        """Raise ValueError, naming a leaf of these (of all), unless leaves are divided as in a state."""
        states = {name: own.states for name, own in state.as_now(former_paths(divided.treedef)).own.items()}
        self.division.check(divided, states, divided.paths if paths is None else paths)

    def adapt(self, params: Any, hyper: Mapping[str, Any]) -> None:
        """See `Optimizer.adapt`."""
        self.check_whole()
        division, settings = self.division.relabelled(hyper)
        given = self.chain.by_holder(settings)
        binding, leaves = division.divide(params)
        if division is self.division:
            waiting = self._waiting(binding)
            known = {path for states in waiting.values() if states for path in states.leaves}
            division.check(binding, waiting, [path for path in binding.paths if path in known])
        states = self._known(binding)
        new = {name: holder.adapted(binding.tree(name, leaves), given[name], self.options, states[name])
               for name, holder in self.holders.items()}
        binding.bind({name: group for name, (group, _) in new.items()})
        with self.changing():
            for name, holder in self.holders.items():
                holder.group, holder.settings = new[name]
                holder.waiting = None
            self.binding, self.division = binding, division

    def recount(self, t: int) -> None:
        """Have taken so many steps, and the calls that go with them."""
        self.check_whole()
        takes = {holder: int(holder.asked(holder.chain.gathers.n)) if holder.chain.gathers else 1
                 for holder in self.holders.values()}  # that many calls for a step
        most = min(takes, key=takes.__getitem__)
        calls = t * takes[most] + most.calls % takes[most]
        steps = {holder: max(calls - holder.calls % each, 0) // each for holder, each in takes.items()}
        with self.changing():
            for holder, own in steps.items():
                holder.recount(own)

    def settings(self) -> list[dict[str, Any]]:
        """The settings of all holders as they are now; where one is set, others take their place."""
        return [holder.settings for holder in self.holders.values()]

    @contextlib.contextmanager
    def as_before(self, settings: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Be recorded with settings that were before, if any are given."""
        now = self.settings()
        try:
            for holder, own in zip(self.holders.values(), settings or now):
                holder.settings = own
            yield
        finally:
            for holder, own in zip(self.holders.values(), now):
                holder.settings = own

    @property
    def hears(self) -> bool:
        """Whether a schedule hears values."""
        return any(holder.hearing() for holder in self.holders.values())

    def hear(self, value: float) -> None:
        """See `Optimizer.hear`."""
        if not self.hears:
            raise ValueError(f"{self.chain.title} has no schedule that hears values: give it one, such as "
                             "lr=fallline.schedules.plateau(1e-2).")
        for holder in self.holders.values():
            holder.hear(value)

    def _known(self, binding: Binding) -> dict[str, LeafStates | None]:
        """What is known of leaves by the names that they have in another tree, where they may have others: a key is
        marked once another could be taken for it."""
        if self.binding is None:
            return self._waiting(binding)
        was, now = former_paths(self.binding.treedef), former_paths(binding.treedef)
        names = {name: now.get(key) for key, name in was.items() if name}  # "" stands for the whole tree, too
        return {name: (states := holder.states()) and states.renamed(names) for name, holder in self.holders.items()}

    def _waiting(self, binding: Binding) -> dict[str, LeafStates | None]:
        """The states that wait for these leaves, by the names that these have."""
        states = {name: holder.waiting for name, holder in self.holders.items()}
        return as_now(states, former_paths(binding.treedef)) if any(states.values()) else states

    # ---- copies ------------------------------------------------------------------------------------------------------

    def fresh(self, holders: Mapping[str, Holder]) -> Stepper:
        """The same with these holders, which have no state."""
        return Stepper(self.chain, holders, self.division, self.options, self.others)

    def apart(self, holders: Mapping[str, Holder]) -> Stepper:
        """The same with these holders, which are `apart`, to be copied or pickled."""
        other = object.__new__(Stepper)
        other.__dict__.update(self.__dict__, holders=holders)
        return other

    def bind_again(self) -> None:
        """Step on, here, after `apart`; a part goes on by itself."""
        groups = {name: holder.group for name, holder in self.holders.items() if holder.group}
        if self.binding is not None:
            self.binding.bind(groups)
        elif "" in groups:
            self.binding = Binding.of(groups[""])

    # ---- calls -------------------------------------------------------------------------------------------------------

    def step(self, params: Any, grads: Any) -> Any:
        """See `Optimizer.step`."""
        taken = self._quickly("x", params, grads, None)
        if taken is None or taken is False:  # and not 0.0, which a Python float may have come to
            taken = self._mended(params, grads)
        if taken is not None and taken is not False:
            return params if taken is True else taken
        return self.others.together(self._step, params, grads)

    def _step(self, params: Any, grads: Any) -> Any:
        self.check_ready()
        if params is None:
            raise TypeError(f"step of {self.chain.title} needs the parameters: opt.step(params, grads). Got None.")
        binding = self.bind(params, "parameter")
        xs = binding.leaves(params, "parameter")
        gs = binding.leaves(grads, "gradient")
        return self._take_checked(binding, "x", xs, gs, xs, params)

    def flush(self, params: Any) -> Any:
        """See `Optimizer.flush`."""
        return self.others.together(self._flush, params)

    def _flush(self, params: Any) -> Any:
        self.check_ready()
        if params is None:
            raise TypeError(f"flush of {self.chain.title} needs the parameters: opt.flush(params). Got None.")
        binding = self.bind(params, "parameter")
        xs = binding.leaves(params, "parameter")
        full = [name for name, group in binding.groups.items() if group.gathered_calls()]
        return self._take_checked(binding, "x", xs, [None] * len(xs), xs, params, full) if full else params

    def update(self, grads: Any, params: Any, out: Any) -> Any:
        """See `Optimizer.update`."""
        new = self._quickly(INCREMENT, params, grads, out)
        if new is not None and new is not False:
            return new if out is None else out
        return self.others.together(self._update, grads, params, out)

    def _update(self, grads: Any, params: Any, out: Any) -> Any:
        self.check_ready()
        if self.chain.arrives:
            raise TypeError(f"update of {self.chain.title} cannot keep parameters within bounds: x + (high - x) need "
                            "not equal high. Call step, which updates them itself.")
        if grads is None:
            raise TypeError(f"update of {self.chain.title} needs a gradient: opt.update(grads). Got None.")
        if params is None and self.chain.needs_parameters:
            raise TypeError(f"update of {self.chain.title} needs the parameters: opt.update(grads, params=w).")
        if params is None and self.binding is None and holds_none(grads):
            raise ValueError(f"The first update of {self.chain.title} cannot know a leaf whose gradient is None: pass "
                             "the parameters too, opt.update(grads, params=w).")
        binding = self.bind(grads, "gradient") if params is None else self.bind(params, "parameter")
        gs = binding.leaves(grads, "gradient")
        for k, g in enumerate(gs) if params is None else ():
            binding.check_library(k, g, "gradient")
        xs = None if params is None else binding.leaves(params, "parameter")
        targets = None if out is None else binding.leaves(out, "out")
        return self._take_checked(binding, INCREMENT, xs, gs, targets, out)

    # ---- quickly -----------------------------------------------------------------------------------------------------

    def _quickly(self, into: str, params: Any, grads: Any, out: Any) -> Any:
        """Take a step that is like the last one, if it is no single native call."""
        binding = None if self.torn else self.binding
        look = None if binding is None else binding.look(into, out is not None)
        return look.take(params, grads, out) if look is not None and not look.is_atomic else None

    def _mended(self, params: Any, grads: Any) -> Any:
        """Take a step that is like the last one but for where parameters lie, or what gradients share with them."""
        binding = None if self.torn else self.binding
        look = None if binding is None else binding.look("x", False)
        return None if look is None else look.mend(params, grads)

    # ---- carefully ---------------------------------------------------------------------------------------------------

    def bind(self, like: Any, what: str) -> Binding:
        """The binding, a new one if there is none, which is kept once a call has succeeded."""
        if self.binding is not None:
            return self.binding
        binding, leaves = self.division.divide(like)
        waiting = self._waiting(binding)
        self.division.check(binding, waiting, binding.paths)
        binding.bind({name: holder.bound_to(binding.tree(name, leaves), what, self.options, waiting[name])
                      for name, holder in self.holders.items()})
        return binding

    def check_ready(self) -> None:
        self.check_whole()
        if self.t == LAST_STEP:
            raise OverflowError(f"{self.chain.title} has taken 2**63 - 1 steps, the last that it can count: set opt.t "
                                "to a smaller number.")

    def _take_checked(self, binding: Binding, into: str, xs: Any, gs: Any, targets: Any, tree: Any,
                      flushed: Sequence[str] = ()) -> Any:
        """Take a step of leaves that are as they should be; or have some groups step with what they have gathered."""
        with pinned():
            several = len(binding.groups) > 1  # a single one looks at its own arrays
            arrays = [*gs, *(xs or ()), *((into != "x" and targets) or ())] if several and self._asks(gs) else []
            gs, before = binding.set_apart(into, xs, gs, targets), places(arrays)
            still = list(targets) if into == "x" else binding.still(gs, targets)
            calls = {name: self._call(name, binding, into, bool(flushed), xs, gs, targets)
                     for name in flushed or binding.groups}
            for call in calls.values():
                call.arrange()
            self.others.begin(self, binding, calls, (into, *(g is None for g in gs)))
            plan = None if flushed else binding.plan(calls)
            try:
                if (plan is None or not plan.is_finite()) and self._skips(binding, calls):
                    self.others.agree(skips=True)
                for name, call in calls.items():
                    call.ask(int(binding.groups[name].count[0]))
                if places(arrays) != before:
                    raise ValueError(f"An array was resized while a schedule of {self.chain.title} was asked: "
                                     "parameters, gradients and outputs must stay as they are in a call. Nothing was "
                                     "changed.")
                self._warn(binding, calls, None if flushed else gs)
                results = self._run(binding, calls, plan)
            except Skipped:
                self.skipped += 1
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
        scheduled = any(type(s) is not float for holder in self.holders.values() for s in holder.settings.values())
        return scheduled or any(type(g) is not np.ndarray and g is not None for g in gs)

    def _call(self, name: str, binding: Binding, into: str, flushes: bool, *trees: Sequence[Any] | None) -> Call:
        """The call of a holder, with what was given checked and nothing changed."""
        group = binding.groups[name]
        xs, gs, targets = (binding.own(name, leaves) for leaves in trees)
        chain = group.chain
        kind = HostCall if group.engine.in_memory else ArrayCall
        if group.holds() and not flushes:
            return kind(group, chain.holding(into), into, xs, gs, targets)
        if chain.gathers:
            gs = group.completed(gs)
        program = chain.stepping if into == "x" else chain.updating
        kind = WholeCall if chain.rule.whole_leaf else kind
        own = {chain.gathers.weight: 0.0} if flushes and chain.gathers else {}  # for what it has, and none besides
        return kind(group, program, into, xs, gs, targets, own)

    def _skips(self, binding: Binding, calls: Calls) -> bool:
        """Whether to skip the call for gradients that are not finite; raises under nonfinite="raise"."""
        bad = [found for call in calls.values() for found in call.find_non_finite()]
        if not bad:
            return False
        bad.sort(key=lambda found: binding.paths.index(found[0]))
        if self.options.nonfinite == "raise":
            said = "; ".join(f"{path or 'the gradient'} has {kinds}" for path, kinds in bad[:5])
            raise NonFiniteGradient(f"Gradient not finite: {said}{' ...' if len(bad) > 5 else ''}. Nothing changed; "
                                    'nonfinite="skip" skips such steps.', tuple(path for path, _ in bad))
        return True

    def _warn(self, binding: Binding, calls: Calls, gs: Sequence[Any] | None) -> None:
        """Say if the first call, here or of the run, has no gradient at all, and at the first step of the run if its
        gradients are damped."""
        given = [] if self.has_begun or gs is None else [g for name in binding.groups for g in binding.own(name, gs)]
        self.has_begun = True
        if given and all(g is None for g in given):
            warn(f"All gradients given to {self.chain.title} are None, and the call counts all the same: was "
                 "backward() forgotten, or are these not the parameters that it went to?")
        first = all(holder.t == 0 and holder.waiting is None for holder in self.holders.values())
        if first and not any(call.holds for call in calls.values()):
            warn_if_damped([(call.group, call.gradients) for call in calls.values()])

    def _run(self, binding: Binding, calls: Calls, plan: Plan | None) -> Mapping[str, Any]:
        """Run the calls: by a plan, in one native call, or one after the other."""
        if plan is None:
            binding.prepare(calls, self.others)
        self._keep_settings(binding)
        if plan is not None:
            host = [call for call in calls.values() if isinstance(call, HostCall)]
            plan.take_over(host)
            noted = [call for call in host if call.notes]

            def planned() -> bool:
                taken = plan.run(self.others)
                for call in noted if taken else ():
                    call.note()
                return taken

            commit = partial(self._commit, binding, planned if noted else partial(plan.run, self.others), True)
            if not (held(commit) if noted else commit()):  # the sums of a reading are not finite
                self._skips(binding, calls)
                self.others.agree(skips=True)
            return {name: call.finish() for name, call in zip(calls, host)}

        self.others.agree()

        def run() -> Mapping[str, Any]:
            return {name: call.run() for name, call in calls.items()}

        brief = binding.is_small() and all(call.group.engine.plans for call in calls.values())
        brief = brief or all(isinstance(call, ArrayCall) and call.is_dispatched for call in calls.values())
        commit = partial(self._commit, binding, run, False)
        return held(commit) if brief else commit()

    def _keep_settings(self, binding: Binding) -> None:
        """Have groups that are new know what a schedule has set meanwhile; refused, if at all, before any steps."""
        for name, holder in self.holders.items():
            if binding.groups[name].given is not holder.settings:
                binding.groups[name].resolve(holder.settings)

    def _commit(self, binding: Binding, act: Callable[[], Any], atomic: bool) -> Any:
        """Act, and have the binding; an interrupt leaves it done or not begun if that is one native call (`atomic`),
        else a torn optimizer."""
        holders, bound = self.holders, self.binding
        before = [holder.t for holder in holders.values()]
        self.binding, self.torn = binding, not atomic
        for name, holder in holders.items():
            holder.group = binding.groups[name]
        result = False
        try:
            result = act()
        finally:
            if atomic and result is False and bound is None and before == [holder.t for holder in holders.values()]:
                self._unbind()
        self.torn = False
        for holder in holders.values() if result is not False else ():
            holder.waiting = None
        return result

    def _unbind(self) -> None:
        """Know the leaves no longer."""
        self.binding = None
        for holder in self.holders.values():
            holder.group = None

    def _look_ahead(self, binding: Binding, calls: Calls, plan: Plan, trees: Sequence[Any]) -> None:
        """Have the next call looked at quickly; one that others take part in never is."""
        plan.revalue()
        if not self.others.is_one:
            return
        settled = all(call.settled for call in calls.values() if isinstance(call, HostCall))
        with contextlib.suppress(MemoryError, OSError, RuntimeError):  # for want of room: the step is taken
            binding.watch(plan, trees, self.turn.taken, settled)
