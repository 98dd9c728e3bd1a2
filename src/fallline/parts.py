"""What a partition has in the place of a chain: the chains of its parts, and the label that says whose a leaf is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fallline.chain import Chain
from fallline.errors import FormulaError
from fallline.fingerprint import described
from fallline.schema import Hyper, brief, unknown_setting
from fallline.settings import renewed
from fallline.trees import Treedef, flatten
from fallline.trees import paths as paths_of

__all__ = ["Chains", "checked_label", "names_of"]


class Chains:
    """The chains of a partition, and the names that all they hold have together.

    A hyper-parameter is called "part.rule.name"; `short` maps what means that too: what its part calls it, with the
    part's name before it, and without where no other part has that name.
    """

    def __init__(self, kind: str, chains: Mapping[str, Chain]) -> None:
        self.title = f"{kind}({', '.join(chain.title for chain in chains.values())})"
        self._kind, self._chains = kind, chains
        self.hyper: dict[str, Hyper] = {f"{part}.{q}": h for part, c in chains.items() for q, h in c.hyper.items()}
        own = {part: {**{q: q for q in chain.hyper if len(chain.rules) > 1}, **chain.short}
               for part, chain in chains.items()}
        known = {part: {*names, *(h.name for h in chains[part].hyper.values())} for part, names in own.items()}
        alone = {name: f"{part}.{q}" for part, names in own.items() for name, q in names.items()
                 if not any(name in known[other] for other in chains if other != part)}
        self.short = {name: q for name, q in alone.items() if "." in name}
        self.short |= {f"{part}.{name}": f"{part}.{q}" for part, names in own.items() for name, q in names.items()
                       if name != q}
        self.short |= {name: q for name, q in alone.items() if "." not in name}

    def __reduce__(self) -> tuple[Any, ...]:
        return Chains, (self._kind, self._chains)

    def __deepcopy__(self, memo: Any) -> Chains:
        return self

    def qualify(self, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Hyper-parameters by any of their names, those of each part by "rule.name"; TypeError for unknown names."""
        unknown_setting(self.title, {n: v for n, v in given.items() if n not in self.hyper}, self.short)
        found: dict[str, dict[str, Any]] = {part: {} for part in self._chains}
        for name, value in given.items():
            part, own = self.divide(self.short.get(name, name))
            found[part][own] = value
        return found

    def divide(self, qualified: str) -> tuple[str, str]:
        """The part of a hyper-parameter, and what it is called there."""
        part, own = qualified.split(".", 1)
        return part, own

    def links(self, settings: Any) -> Any:
        """No chain can have them among its own."""
        raise FormulaError(f"A {self._kind} has chains in it and cannot stand in one: give what modifies the gradient "
                           f"or the increment to the chain of a part. (How to clip by the norm of all parts: "
                           "help(fallline.partition).)")

    @property
    def needs_parameters(self) -> bool:
        """Whether the increment of a part depends on the parameters themselves."""
        return any(chain.needs_parameters for chain in self._chains.values())


def names_of(label: Any, what: str, treedef: Treedef, paths: Sequence[str], leaves: Sequence[Any]) -> list[Any]:
    """What a function of the path, or a tree of names (`what` messages call it), says of each leaf."""
    if callable(label):
        if not _takes_shape(label):
            return [label(path) for path in paths]
        return [label(path, shape=tuple(getattr(leaf, "shape", ()))) for path, leaf in zip(paths, leaves)]
    if treedef.spec is not None:
        import optree

        try:
            return optree.broadcast_prefix(label, treedef.unflatten(range(len(paths))))
        except ValueError:
            pass
    where = ", ".join(map(repr, paths[:5])) + " ..." * (len(paths) > 5) if paths != [""] else "a single array"
    raise ValueError(f"{what} must have the structure of the parameters or of their upper levels ({where}), or be a "
                     f"function of the path. Got {brief(label)}.")


def checked_label(label: Any, what: str, part_of: Callable[[Any, str], Any]) -> Any:
    """A label (`what` messages call it) if it is a function, or a tree of what `part_of` knows."""
    if isinstance(label, (dict, list, tuple)):
        leaves, treedef = flatten(label)
        for path, said in zip(paths_of(treedef), leaves):
            part_of(said, path)
        return renewed(label)
    if not callable(label) or hasattr(label, "hyper"):  # rules and optimizers are callable, but no labels
        raise TypeError(f"{what} must be a function of the leaf's path, or a tree shaped like the parameters. "
                        f"Got {brief(label)}.")
    try:
        signature = inspect.signature(label)
    except (TypeError, ValueError):  # of some that are built in nothing is known
        return label
    try:
        signature.bind("", **{"shape": ()} if "shape" in signature.parameters else {})
    except TypeError:
        raise TypeError(f"{what} must be a function of the leaf's path, or of path and shape, under that name. "
                        f"Got {described(label)}{signature}.") from None
    return label


def _takes_shape(label: Callable[..., Any]) -> bool:
    """Whether a function of a leaf's path asks for the shape of the leaf too."""
    try:
        return "shape" in inspect.signature(label).parameters
    except (TypeError, ValueError):
        return False
