"""What is meant by names of settings that are not known here: those of other libraries, and slips of the finger."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, cast

from fallline._messages.elsewhere import ATTRIBUTES, LOOPS, NAMES, SAME, SETTINGS, family, plain, schedule

__all__ = [
    "REMEDY", "by_name", "meant", "meant_argument", "meant_attribute", "meant_name", "meant_schedule",
    "meant_within", "of_another", "unknown_setting",
]  # fmt: skip

REMEDY = "pass parameters to step: opt.step(params, grads)"

_VARIANTS = {
    ("SGD", "momentum"): "Momentum", ("SGD", "nesterov"): "Nesterov", ("Momentum", "nesterov"): "Nesterov",
    ("Adam", "nesterov"): "Nadam", ("AdamW", "nesterov"): "NadamW", ("Adam", "amsgrad"): "AMSGrad",
}  # fmt: skip


def meant_name(name: str, known: Iterable[str], dialects: Iterable[str] = (), methods: Iterable[str] = ()) -> str:
    """What to write for a public name that is not there, as a sentence with a space before it; "" if nothing is near.

    Of `dialects` and `methods` the whole names are known, such as "dialects.torch.Adam" and "Optimizer.step".

    >>> meant_name("Adagrad", ["AdaGrad", "Adam"]), meant_name("clip_grad_norm_", ["clip_norm"]), meant_name("plot", [])
    (' Did you mean AdaGrad?', ' Did you mean clip_norm?', '')
    >>> meant_name("yogi", ["Adam"], ["dialects.optax.yogi"])
    ' Did you mean dialects.optax.yogi?'
    """
    from difflib import get_close_matches  # for an error alone

    own = {plain(other): other for other in known}
    of_others = {plain(title.rpartition(".")[2]): title for title in (*methods, *dialects)}
    said = {**of_others, **{plain(other): here for other, here in NAMES.items()}, **own}
    for names, cutoff in ((said, 1.0), (own, 0.85)):  # as it is there, or a slip of the finger
        if close := get_close_matches(plain(name), names, 1, cutoff):
            return f" Did you mean {names[close[0]]}?"
    if sentence := family(name) or schedule(name):
        return f" {sentence}"
    close = get_close_matches(plain(name), said, 1, 0.75)
    return f" Did you mean {said[close[0]]}?" if close else ""


def meant_schedule(name: str, known: Iterable[str]) -> str:
    """What to write for a schedule that is not there, likewise."""
    sentence = schedule(name, always=True)
    return f" {sentence}" if sentence else _close(name, known)


def meant_within(name: str, known: Iterable[str]) -> str:
    """What to write for a name that a module does not have, likewise: as it is spelt there, or a near one."""
    said = {plain(other): other for other in known}
    return f" Did you mean {said[plain(name)]}?" if plain(name) in said else _close(name, known)


def of_another(value: Any) -> str:
    """What to write for an optimizer of another library, or what makes one, in the place of ours; likewise.

    >>> of_another(1.0)
    ''
    """
    made = value if isinstance(value, (type, FunctionType)) else type(value)
    library = made.__module__.partition(".")[0]
    title = f"dialects.{library}.{made.__name__}"
    if title in _dialects():
        return f" It is {library}'s, whose formula fallline.{title} has."
    return " It is optax's, whose formulas fallline.dialects.optax has." if library == "optax" else ""


def meant_argument(function: str, name: str, known: Iterable[str]) -> str:
    """What to write for an argument that a function does not have, likewise."""
    if name in LOOPS.get(function, {}):
        return f" {LOOPS[function][name]}"
    close = _close(name, known)
    is_setting = function not in LOOPS and any(name in names for names in (SAME, *SAME.values()))
    return f" It is a setting of a link: {function}(..., fallline.Adam(...))." if is_setting and not close else close


def meant_attribute(owner: str, name: str, known: Iterable[str], hyper: Iterable[str]) -> str:
    """What to write for an attribute that an optimizer does not have, likewise."""
    if name in ATTRIBUTES:
        return f" {ATTRIBUTES[name]}"
    if same := _same(name, [*hyper]):
        return f" Write {' and '.join(f'opt.{own}' for own in same)}."
    if name.startswith("register_") or name.endswith("Hook"):
        return " A loop of your own calls what it likes around a step; fallline.torch has torch's hooks."
    close = _close(name, [other for other in known if not other.startswith("_")], before="opt.")
    return close or meant(owner, name, hyper)


def _same(name: str, known: Sequence[str]) -> list[str]:
    """Which of the known settings another library calls by a name."""
    if name == "betas":
        return [own for own in known if re.fullmatch(r"beta\d", own)]
    return [own for own in SAME.get(name, ()) if own in known][:1]


def by_name(misplaced: Sequence[Any]) -> str:
    """What `update` says of what it got by position behind the gradients.

    >>> by_name([None])
    'update takes params and out by name: opt.update(grads, params=w). Got 2 arguments by position.'
    """
    order = " (for optax's order, write fallline.optax.transform(opt))" * (len(misplaced) > 1)
    return ("update takes params and out by name: opt.update(grads, params=w). "
            f"Got {1 + len(misplaced)} arguments by position{order}.")


def meant(owner: str, name: str, known: Iterable[str], of_optimizer: bool = True) -> str:
    """The remedy for a setting that `owner`, an optimizer or a schedule, does not have, as a sentence with a space
    before it; "" if none is clear.

    >>> meant("AdamW", "betas", ["lr", "beta1", "beta2"]), meant("SGD", "rho", ["lr"])
    (' Write beta1=..., beta2=... in its place.', '')
    >>> meant("SGD", "momentum", ["lr"]), meant("Muon", "momentun", ["lr", "momentum"])
    (' That is an optimizer of its own: fallline.Momentum.', ' Did you mean momentum?')
    """
    known = list(known)
    if same := _same(name, known):
        return f" Write {', '.join(f'{own}=...' for own in same)} in its place."
    if name in ("params", "parameters"):
        return f" {REMEDY.capitalize()}."
    if (owner, name) in _VARIANTS:
        return f" That is an optimizer of its own: fallline.{_VARIANTS[owner, name]}."
    if name == "weight_decay" and "lr" in known and "weight_decay.rate" not in known:
        return (" It is a link of a chain: fallline.chain(..., fallline.weight_decay(rate)), as in AdamW; "
                "fallline.chain(fallline.l2(rate), ...) adds it to the gradient.")
    if of_optimizer and name in SETTINGS:
        return f" {SETTINGS[name]}"
    if title := next((title for title, cls in _dialects().items() if plain(title.rpartition(".")[2]) == plain(owner)
                      and name in cls.arguments.parameters), ""):  # fmt: skip
        return f" fallline.{title} has it."
    return _close(name, [k for k in known if k.count(".") == name.count(".")], 0.6)


def _dialects() -> Mapping[str, Any]:
    """The optimizers of other libraries by title."""
    return cast(Mapping[str, Any], importlib.import_module("fallline.dialects").every())  # above, and for errors alone


def _close(name: str, known: Iterable[str], cutoff: float = 0.75, before: str = "") -> str:
    """The nearest of the known names, as a sentence; "" if none is near."""
    from difflib import get_close_matches  # for an error alone

    close = get_close_matches(name, list(known), 1, cutoff)
    return f" Did you mean {before}{close[0]}?" if close else ""


def unknown_setting(owner: str, settings: Mapping[str, Any], known: Any, what: str = "hyper-parameter") -> None:
    """Refuse settings that are not known, listing those that are, and what is meant where that is clear."""
    for name in settings:
        if name not in known:
            raise TypeError(f"{owner} has no {what} {name!r}. Known: {', '.join(known) or 'none'}."
                            f"{meant(owner, name, known, what != 'parameter')}")
