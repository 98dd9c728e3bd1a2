"""The ranks of a job as the others of an optimizer: each has a part of every leaf, and all take the same step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from mpi4py import MPI

from fallline._arrays.leaves import is_number
from fallline._arrays.trees import is_container
from fallline._engines.blocks import Blocks
from fallline._messages.values import brief
from fallline._step.binding import Binding
from fallline._step.calls.alone import Alone
from fallline._step.calls.host import HostCall
from fallline._step.calls.whole import WholeCall
from fallline.mpi.agreement import About, Agreement
from fallline.mpi.layout import Layout, Leaf, Seen, laid_out
from fallline.mpi.sums import Straddling, complete, gathered, straddling

if TYPE_CHECKING:
    from fallline._state.checkpoint import Contents
    from fallline._state.file import Path

__all__ = ["Domain"]

T = TypeVar("T")


class Domain(Alone):
    """The ranks of a communicator, each with a contiguous range of every leaf.

    `offsets` says where those of this rank begin, a tree or a number of one leaf; None: they are stacked by rank.
    Leaves of the paths `replicated` are the same on all. Of leaves that came from a file is `known`, by path, where
    they begin here and the shape of the whole.
    """

    is_one = False

    def __init__(self, comm: MPI.Comm, offsets: Any = None, replicated: Collection[str] = (),
                 known: Mapping[str, tuple[int, tuple[int, ...]]] = MappingProxyType({})) -> None:
        self.offsets, self.replicated, self.known = offsets, frozenset(replicated), dict(known)
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self._word = Agreement(comm)
        self._about: About = ()
        self._calls: list[Any] = []

    def __deepcopy__(self, memo: Any) -> Domain:
        return Domain(self.comm, self.offsets, self.replicated, self.known)

    def __reduce__(self) -> Any:
        raise TypeError("An optimizer of several ranks cannot be pickled, as its communicator cannot: save it, "
                        "opt.save(path), and load it, fallline.mpi.load(path).")

    # ---- calls -------------------------------------------------------------------------------------------------------

    def together(self, act: Callable[..., T], *given: Any) -> T:
        return self._word.together(act, *given)

    def each(self, act: Callable[..., T], *given: Any) -> list[T]:
        return self._word.each(act, *given)

    def once(self, act: Callable[..., T], *given: Any) -> T:
        found: list[Any] = self._word.each(_if, self.rank == 0, act, given)
        return found[0]

    def begin(self, stepper: Any, binding: Any, calls: Mapping[str, Any], given: tuple[Any, ...]) -> None:
        into, *absent = given
        settings = [(f"{part}.{name}" if part else name, value) for part, holder in stepper.holders.items()
                    for name, value in holder.settings.items() if type(value) is float]
        self._about = (("call", "a step" if into == "x" else "an update"), ("step count t", stepper.t),
                       ("calls", [holder.calls for holder in stepper.holders.values()]), *settings,
                       ("leaves without a gradient", [path for path, no in zip(binding.paths, absent) if no]),
                       ("first call of these leaves", binding.layout is None))
        self._calls = list(calls.values())
        for call in self._calls:
            if not isinstance(call, HostCall) and (call.readings or call.readings_behind):
                raise TypeError(f"{call.group.chain.title} sums over leaves, which several ranks do for arrays in host "
                                "memory (NumPy, torch CPU tensors) only: bring them there.")
        if binding.layout is None:
            binding.layout = self.lay_out(binding, None)
            binding.heads = binding.layout.heads(self.rank)
        for call in self._calls:
            if isinstance(call, WholeCall):
                self._check_whole(call, _own(binding, call.group))
        self._of_calls = [_own(binding, call.group) for call in self._calls]

    def agree(self, skips: bool = False) -> None:
        self._word.agree(self._about, skips)

    def lay_out(self, binding: Any, leaves: Sequence[Any] | None) -> Layout:
        """Know of the parts that all have of the leaves; of those that no optimizer steps if they are given."""
        unknown = self.replicated - set(binding.paths)
        if unknown:
            raise ValueError(f"replicated of domain_parallel must name leaves: {', '.join(map(repr, binding.paths))}. "
                             f"Got {min(unknown)!r}.")
        kinds = {path: group.dtypes[n].name for group in binding.groups.values() for n, path in enumerate(group.paths)}
        seen = [Seen(path, shape or (), kinds.get(path, ""), start, shape is None or path in self.replicated)
                for path, shape, start in zip(binding.paths, self.shapes(binding, leaves), self._starts(binding))]
        self._word.agree((("call", "one on new leaves"), *self._about))
        wholes = {path: shape for path, (_, shape) in self.known.items()}
        found = laid_out(self.comm.allgather(seen), wholes)  # what is wrong with them, all find
        self._word.open = True
        return found

    @staticmethod
    def shapes(binding: Any, leaves: Sequence[Any] | None) -> list[tuple[int, ...] | None]:
        """The shapes of this rank's parts; None for a leaf that no optimizer steps, if it is no array or not given."""
        found = [np.shape(leaf) if hasattr(leaf, "shape") and not is_number(leaf) else None
                 for leaf in leaves or [None] * len(binding.paths)]
        for part, own in binding.positions.items():
            for n, k in enumerate(own):
                found[k] = binding.groups[part].shapes[n]
        return found

    def confirm(self, about: About) -> None:
        """Go on if all ranks are about the same, and none has refused."""
        self._word.agree(about)
        self._word.open = True

    def _starts(self, binding: Any) -> list[int | None]:
        """Where this rank's ranges begin, if that was said."""
        if self.offsets is None:
            return [self.known[path][0] if path in self.known else None for path in binding.paths]
        given = binding.treedef.spread(self.offsets) if is_container(self.offsets) else [self.offsets]
        if given is None or len(given) != len(binding.paths):
            raise ValueError("offsets of domain_parallel must be a tree like the parameters, with the first coordinate "
                             f"of this rank's part of each leaf. Got {brief(self.offsets)}.")
        return [_start(path, start) for path, start in zip(binding.paths, given)]

    @staticmethod
    def _check_whole(call: WholeCall, leaves: Sequence[tuple[Leaf, int]]) -> None:
        for leaf, _ in leaves:
            if not leaf.is_whole:
                first, second = leaf.order[:2]
                raise ValueError(f"{call.group.chain.title} is a function of whole leaves: "
                                 f"{leaf.path or 'the parameter'} must be whole on one rank, and empty on the others. "
                                 f"Got parts on rank {first} and rank {second}.")

    # ---- sums --------------------------------------------------------------------------------------------------------

    def gather(self, level: int, found: Mapping[int, Blocks]) -> Mapping[int, Blocks]:
        blocks = [block for n in sorted(found) for block in straddling(n, self._of_calls[n])
                  if block.k in self._calls[n].live]
        values = dict(self._values(level, blocks))
        self._word.agree(self._about)
        complete(self.comm, self._calls, found, blocks, values, level)
        every = {n: gathered(self.comm, found[n], self._of_calls[n]) for n in sorted(found)}
        self._word.open = True
        return every

    def _values(self, level: int, blocks: Sequence[Straddling]) -> Any:
        """What this rank has of blocks that others have too."""
        for block in blocks:
            for rank, first, count in block.parts:
                if rank == self.rank:
                    call = self._calls[block.call]
                    yield block, call.values(call.readings[level], block.k, slice(first, first + count))

    def know(self, totals: Mapping[int, Mapping[str, Any]]) -> None:
        for n, own in totals.items():
            self._calls[n].know(own)

    # ---- files -------------------------------------------------------------------------------------------------------

    def write(self, stepper: Any, path: Path, contents: Contents) -> None:
        from fallline.mpi.keeping import write

        write(self, stepper, path, contents)

    def read(self, stepper: Any, path: Path, params: Any = None) -> Contents:
        from fallline.mpi.keeping import read_into

        return read_into(self, stepper, path, params)


def _own(binding: Binding, group: Any) -> list[tuple[Leaf, int]]:
    """The leaves of a group, each with the reals that make a coordinate."""
    part = next(name for name, own in binding.groups.items() if own is group)
    return list(binding.own(part, list(zip(binding.layout.leaves, binding.layout.factors))))


def _if(whether: bool, act: Callable[..., T], given: Sequence[Any]) -> T | None:
    return act(*given) if whether else None


def _start(path: str, start: Any) -> int:
    try:
        found = operator.index(start)
    except TypeError:
        found = -1
    if found < 0:
        raise ValueError(f"offsets of domain_parallel must be whole numbers ≥ 0. Got {brief(start)}"
                         f"{f' for {path!r}' * bool(path)}.")
    return found
