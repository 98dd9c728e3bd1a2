"""Hyper-parameters as attributes of an optimizer: asked for by name, set by name, refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

from fallline._engines.options import Options
from fallline._messages.suggestions import meant_attribute
from fallline._messages.values import shown
from fallline._optimizer.points import averaged
from fallline._optimizer.stepping import Stepper

__all__ = ["HyperParameters", "Settable"]


class HyperParameters(MutableMapping[str, Any]):
    """The live view that `Optimizer.hyper` gives."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper, self._chain = stepper, stepper.chain

    def __getitem__(self, name: str) -> Any:
        part, own = next(iter(self._chain.places(self._qualified(name)).items()))
        return self._stepper.holders[part].asked(own)

    def __setitem__(self, name: str, value: Any) -> None:
        self._stepper.turn.join(self._assign, self._chain.places(self._qualified(name)), value)

    def _assign(self, places: Mapping[str, str], value: Any) -> None:
        """Assign a hyper-parameter in all holders that have it, or in none."""
        holders = [(self._stepper.holders[part], own) for part, own in places.items()]
        new = [(holder, holder.with_settings({own: value})) for holder, own in holders]
        for holder, settings in new[1:]:  # the first says itself if they do not fit
            holder.check_settings(settings)
        for holder, settings in new:
            holder.set(settings)

    def _qualified(self, name: str) -> str:
        qualified = self._chain.short.get(name, name)
        if qualified not in self._chain.hyper:
            raise KeyError(f"{self._chain.title} has no hyper-parameter {name!r}. "
                           f"Known: {', '.join([*self._chain.short, *self._chain.hyper])}.")
        return str(qualified)

    def __getattr__(self, name: str) -> Any:
        known = None if name.startswith("_") else self._chain.short.get(name)
        raise AttributeError(f"Hyper-parameters go by item, opt.hyper[{name!r}], or by attribute of the optimizer, "
                             f"opt.{name}." if known else f"opt.hyper has no attribute {name!r}.", name=name)

    def __delitem__(self, name: str) -> None:
        raise TypeError("Hyper-parameters cannot be deleted, only set.")

    def __iter__(self) -> Iterator[str]:
        short = {qualified: name for name, qualified in self._chain.short.items()}
        return (short.get(q, q) for q in self._given())

    def _given(self) -> list[str]:
        """Those that have a value of their own, and not that of another of the chain."""
        first = {q: next(iter(self._chain.places(q).items())) for q in self._chain.hyper}
        return [q for q, (part, own) in first.items() if own in self._stepper.holders[part].settings]

    def __len__(self) -> int:
        return len(self._given())

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {shown(value)}' for name, value in self.items())}}}"


class Settable:
    """Has hyper-parameters, and those that have short names as attributes, too."""

    _chain: Any
    _stepper: Stepper
    _view: ClassVar[type[HyperParameters]] = HyperParameters

    @property
    def hyper(self) -> MutableMapping[str, Any]:
        """Hyper-parameters by name, and always by "rule.name"; assigning one takes effect at the next step.

        Assign a tree as a whole, `opt.lr = {**opt.lr, "b": 0.1}`: writing into a returned tree raises TypeError.

        >>> import fallline as fl
        >>> opt = fl.Adam(1e-3)
        >>> opt.hyper["adam.lr"] = 0.01
        >>> opt.lr
        0.01
        """
        return self._view(self._stepper)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyper-parameters, as scikit-learn asks for them: an estimator's `optimizer__lr` can be tuned.

        >>> import fallline as fl
        >>> fl.SGD(0.1).get_params()
        {'lr': 0.1}
        """
        return dict(self.hyper)

    def set_params(self, **params: Any) -> Settable:
        """Set hyper-parameters, as scikit-learn does; raises KeyError for unknown names, and then sets none.

        >>> import fallline as fl
        >>> fl.SGD(0.1).set_params(lr=0.5)
        SGD(lr=0.5)
        """
        for name in params:
            self.hyper[name]
        for name, value in params.items():
            self.hyper[name] = value
        return self

    def __getattr__(self, name: str) -> Any:
        chain = self.__dict__.get("_chain")
        if name == "averaged" and chain is not None:
            return averaged(self._stepper)  # whose error Python has taken for that of a name that is not known
        if chain is None or name.startswith("_") or name not in chain.short:
            raise AttributeError(self._unknown(name))
        return self.hyper[name]

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if name.startswith("_") or (isinstance(own, property) and own.fset):
            object.__setattr__(self, name, value)
        elif own is not None:
            raise AttributeError(self._unsettable(name))
        elif name in self._chain.short:
            self.hyper[name] = value
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
        several = [f'opt.hyper["{own}"]' for own in self.hyper if chain.hyper[chain.short.get(own, own)].name == name]
        if several:
            return f"{name} is the name of more than one hyper-parameter: use {' or '.join(several)}."
        if name in ("lower", "upper", "casefold"):  # of who looks names of methods up
            return (f"{type(self).__name__} is an optimizer and no name of a method, which is all that is taken here: "
                    "call SciPy's minimize itself, or what takes a function (of lmfit, "
                    "Minimizer(...).scalar_minimize(method=opt)).")
        known = ", ".join(chain.short) or "none"
        hint = "" if name.startswith("_") else meant_attribute(type(self).__name__, name, dir(self), chain.short)
        return f"{type(self).__name__} has no attribute {name!r}. Its hyper-parameters: {known}.{hint}"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._chain.short})
