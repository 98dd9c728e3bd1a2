"""The ranks of a job as the others of an optimizer: each has a part of every leaf, and all take the same step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from mpi4py import MPI

from fallline._arrays.leaves import is_number
from fallline._arrays.trees import is_container
from fallline._engines.blocks import Blocks
from fallline._messages.values import brief
from fallline._step.calls.alone import Alone
from fallline._step.calls.host import HostCall
from fallline.mpi.agreement import About, Agreement
from fallline.mpi.layout import Layout, Seen, laid_out
from fallline.mpi.sums import Straddling, Sums

if TYPE_CHECKING:
    from fallline._state.checkpoint import Contents
    from fallline._state.file import Path

__all__ = ["Domain", "among"]

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
                       ("first call of these leaves", binding.shared is None))
        self._calls = list(calls.values())
        for call in self._calls:
            if not isinstance(call, HostCall) and (call.readings or call.readings_behind):
                raise TypeError(f"{call.group.chain.title} sums over leaves, which several ranks do for arrays in host "
                                "memory (NumPy, torch CPU tensors) only: bring them there.")
        if binding.shared is None:
            binding.shared = self._sums(binding)
        self._of_calls = [binding.shared[part] for part in calls]

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

    def _sums(self, binding: Any) -> dict[str, Sums]:
        """How the sums of each group's leaves are put together."""
        layout = self.lay_out(binding, None)
        binding.heads = layout.heads(self.rank)
        found = {part: Sums(binding.own(part, list(zip(layout.leaves, layout.factors))), self.size)
                 for part in binding.groups}
        for part, group in binding.groups.items():
            cut = next((leaf for leaf in found[part].leaves if not leaf.is_whole), None)
            if group.chain.rule.whole_leaf and cut is not None:
                first, second = cut.order[:2]
                raise ValueError(f"{group.chain.title} is a function of whole leaves: {cut.path or 'the parameter'} "
                                 f"must be whole on one rank, and empty on the others. Got parts on rank {first} and "
                                 f"rank {second}.")
        return found

    # ---- sums --------------------------------------------------------------------------------------------------------

    def gather(self, level: int, found: Mapping[int, Blocks]) -> Mapping[int, Blocks]:
        values = {n: list(self._values(self._calls[n], self._of_calls[n], level)) for n in sorted(found)}
        self._word.agree(self._about)
        every = {}
        for n, own in values.items():
            call, sums = self._calls[n], self._of_calls[n]
            if own:
                sums.complete(self.comm, call.group, call.readings[level], found[n], own)
            every[n] = sums.gathered(self.comm, found[n])
        self._word.open = True
        return every

    def _values(self, call: Any, sums: Sums, level: int) -> Iterator[tuple[Straddling, np.ndarray]]:
        """What this rank has of blocks that others have too."""
        for block in sums.straddling:
            for rank, first, count in block.parts:
                if rank == self.rank and block.k in call.live:
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


def among(others: Domain, optimizer: Any) -> Any:
    """The optimizer, fresh, with others who take part in its calls."""
    for each in (optimizer, *getattr(optimizer, "_parts", {}).values()):
        each._stepper.others = others
    return optimizer


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
