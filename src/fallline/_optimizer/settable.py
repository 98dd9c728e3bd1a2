"""Hyper-parameters as attributes of an optimizer: asked for by name, set by name, refused by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any

from fallline._arrays.sealed import sealed
from fallline._engines.options import Options
from fallline._formula.settings import check
from fallline._messages.values import shown
from fallline._optimizer.keeping import Keeping

__all__ = ["Settable"]


class Settable(Keeping):
    """What `Optimizer` is made of as far as its hyper-parameters can be asked for and set."""

    @abstractmethod
    def _averages(self) -> Any: ...

    @property
    def hyper(self) -> MutableMapping[str, Any]:
        """Hyper-parameters by name, and always by "rule.name"; assigning one takes effect at the next step.

        One that is a tree is assigned as a whole, `opt.lr = {**opt.lr, "b": 0.1}`: to write into what is handed out
        raises TypeError.

        >>> import fallline as fl
        >>> opt = fl.Adam(1e-3)
        >>> opt.hyper["adam.lr"] = 0.01
        >>> opt.lr
        0.01
        """
        return _Hyper(self)

    def _checked(self, qualified: str, value: Any) -> Any:
        return check(self._chain.hyper[qualified], value, self._chain.owner(qualified))

    def _get(self, name: str) -> Any:
        source = self._chain.source(self._qualified(name), self._settings)
        return self._chain.hyper[source].asked(sealed(self._settings[source]))

    def _set(self, name: str, value: Any) -> None:
        qualified = self._chain.source(self._qualified(name), self._settings)
        self._refuse_started(qualified)
        self._turn.join(self._assign, qualified, value)

    def _assign(self, qualified: str, value: Any) -> None:
        settings = {**self._settings, qualified: self._checked(qualified, value)}
        if self._bound:
            self._bound.resolve(settings)
        self._settings = settings

    def _refuse_started(self, qualified: str) -> None:
        gathers = self._chain.gathers
        if (self._bound or self._waiting) and gathers is not None and qualified == gathers[1]:
            raise ValueError(f"n of {self._chain.owner(qualified)} says how the calls so far are counted, and cannot "
                             "change after the first: call reset() first, or make a new optimizer.")
        if (self._bound or self._waiting) and qualified in self._chain.only_start():
            raise ValueError(f"{self._chain.hyper[qualified].name} of {self._chain.owner(qualified)} only says where "
                             "the state starts, and that has started: call reset() first, or make a new optimizer.")

    def _qualified(self, name: str) -> str:
        qualified = self._chain.short.get(name, name)
        if qualified not in self._chain.hyper:
            raise KeyError(f"{self._chain.title} has no hyper-parameter {name!r}. "
                           f"Known: {', '.join([*self._chain.short, *self._chain.hyper])}.")
        return qualified

    def __getattr__(self, name: str) -> Any:
        chain = self.__dict__.get("_chain")
        if name == "averaged" and chain is not None:
            return self._averages()  # whose error Python has taken for that of a name that is not known
        if chain is None or name.startswith("_") or name not in chain.short:
            raise AttributeError(self._unknown(name))
        return self._get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if name.startswith("_") or (isinstance(own, property) and own.fset):
            object.__setattr__(self, name, value)
        elif own is not None:
            raise AttributeError(self._unsettable(name))
        elif name in self._chain.short:
            self._set(name, value)
        else:
            raise AttributeError(self._unknown(name))

    def _unsettable(self, name: str) -> str:
        if name in Options._fields:
            return f"{name} is chosen when an optimizer is made, {type(self).__name__}(..., {name}=...), and kept."
        return f"{name} of {type(self).__name__} cannot be set. Its hyper-parameters can: {', '.join(self.hyper)}."

    def _unknown(self, name: str) -> str:
        chain = self.__dict__.get("_chain")
        if chain is None:
            return f"{type(self).__name__} has no attribute {name!r}."
        short = {q: alias for alias, q in chain.short.items()}
        several = [f'opt.hyper["{short.get(q, q)}"]' for q in self._settings if chain.hyper[q].name == name]
        if several:
            return f"{name} is the name of more than one hyper-parameter: use {' or '.join(several)}."
        known = ", ".join(chain.short) or "none"
        return f"{type(self).__name__} has no attribute {name!r}. Its hyper-parameters: {known}."

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._chain.short})


class _Hyper(MutableMapping[str, Any]):
    """The live view that `Optimizer.hyper` gives."""

    def __init__(self, optimizer: Settable) -> None:
        self._optimizer = optimizer

    def __getitem__(self, name: str) -> Any:
        return self._optimizer._get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._optimizer._set(name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError("Hyper-parameters cannot be deleted, only set.")

    def __iter__(self) -> Iterator[str]:
        chain = self._optimizer._chain
        short = {qualified: name for name, qualified in chain.short.items()}
        return (short.get(q, q) for q in chain.hyper if q in self._optimizer._settings)

    def __len__(self) -> int:
        return len(self._optimizer._settings)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {shown(value)}' for name, value in self.items())}}}"
