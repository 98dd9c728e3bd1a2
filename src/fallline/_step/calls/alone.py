"""Who else takes part in a call: nobody, but where `fallline.mpi` has put the ranks of a job in this place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fallline._engines.blocks import Blocks

if TYPE_CHECKING:
    from fallline._state.checkpoint import Contents
    from fallline._state.file import Path

__all__ = ["ALONE", "Alone", "Skipped"]

T = TypeVar("T")


class Skipped(Exception):  # noqa: N818  nothing is wrong with it
    """All have agreed to skip the call."""


class Alone:
    """The others of an optimizer that has none: all that a step, a loop or a file may have to ask of them.

    A call is acted `together`; before it changes anything it has to `agree`, and where it sums, to `gather` the sums of
    blocks. With others each of these waits for them.
    """

    is_one, rank = True, 0  # whether there is nobody else, and the number among them

    def together(self, act: Callable[..., T], *given: Any) -> T:
        """act(*given), which all do: what one raises, all raise."""
        return act(*given)

    def each(self, act: Callable[..., T], *given: Any) -> list[T]:
        """What act(*given) returns, of all by rank."""
        return [act(*given)]

    def once(self, act: Callable[..., T], *given: Any) -> T:
        """act(*given), which one does for all."""
        return act(*given)

    def begin(self, stepper: Any, binding: Any, calls: Mapping[str, Any], given: tuple[Any, ...]) -> None:
        """Know of a call that was checked, and of the part that each has of a leaf; raises ValueError for parts that do
        not fit."""

    def agree(self, skips: bool = False) -> None:
        """Go on, if nobody has refused; raises what one did, or Skipped if one skips the call."""
        if skips:
            raise Skipped

    def gather(self, level: int, found: Mapping[int, Blocks]) -> Mapping[int, Blocks]:
        """The sums of all blocks of the leaves, from those of the blocks that begin here, by the number of the call."""
        return found

    def know(self, totals: Mapping[int, Mapping[str, Any]]) -> None:
        """Know of the totals of a reading, by the number of the call."""

    def write(self, stepper: Any, path: Path, contents: Contents) -> None:
        """Write a checkpoint."""
        from fallline._state.checkpoint import save

        save(path, contents)

    def read(self, stepper: Any, path: Path, params: Any = None) -> Contents:
        """Read a checkpoint; with others this rank's part of it, as it has that of the parameters."""
        from fallline._state.checkpoint import load

        return load(path)


ALONE = Alone()
