"""What is meant by names of settings that are not known here: those of other libraries, and slips of the finger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["REMEDY", "by_name", "meant", "meant_name", "unknown_setting"]

REMEDY = "pass parameters to step: opt.step(params, grads)"

_SAME = {"learning_rate": "lr", "step_size": "lr", "epsilon": "eps", "b1": "beta1", "b2": "beta2", "beta_1": "beta1",
         "beta_2": "beta2"}  # fmt: skip
_VARIANTS = {
    ("SGD", "momentum"): "Momentum", ("SGD", "nesterov"): "Nesterov", ("Momentum", "nesterov"): "Nesterov",
    ("Adam", "nesterov"): "Nadam", ("AdamW", "nesterov"): "NadamW", ("Adam", "amsgrad"): "AMSGrad",
}  # fmt: skip


_ELSEWHERE = {
    "clip": "clip_value or clip_norm", "clip_by_value": "clip_value", "clip_grad_value": "clip_value",
    "clip_grad_norm": "clip_norm", "clip_by_global_norm": "clip_norm", "add_decayed_weights": "weight_decay",
    "ema": "average", "swa": "average", "multi_transform": "partition", "masked": "mask", "multi_steps": "accumulate",
    "nag": "Nesterov", "heavy_ball": "Momentum", "lr_scheduler": "schedules", "scheduler": "schedules",
    "optim": "OPTIMIZERS", "fit": "descend", "fmin": "minimize", "save": "Optimizer.save", "gradient_descent": "SGD",
    "lookahead": "Momentum.lookahead", "problem": "race.Problem", "run": "race.run",
    **{name: f"schedules.{name}" for name in ("constant", "cosine", "exponential", "linear", "one_cycle", "piecewise",
                                              "polynomial")},
}  # fmt: skip


def meant_name(name: str, known: Iterable[str]) -> str:
    """The public name that is meant by one that is not there, as a sentence with a space before it; "" if none is near.

    >>> meant_name("Adagrad", ["AdaGrad", "Adam"]), meant_name("clip_grad_norm_", ["clip_norm"]), meant_name("plot", [])
    (' Did you mean AdaGrad?', ' Did you mean clip_norm?', '')
    """
    from difflib import get_close_matches  # for an error alone

    plain = {_plain(other): other for other in known}
    elsewhere = {_plain(other): here for other, here in _ELSEWHERE.items()}
    said = plain | {other: here for other, here in elsewhere.items() if other not in plain}
    close = get_close_matches(_plain(name), said, 1, cutoff=0.75)
    return f" Did you mean {said[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def by_name(misplaced: Sequence[Any]) -> str:
    """What `update` says of what it got by position behind the gradients.

    >>> by_name([None])
    'update takes params and out by name: opt.update(grads, params=w). Got 2 arguments by position.'
    """
    order = " (optax has its state and the parameters there)" * (len(misplaced) > 1)
    return ("update takes params and out by name: opt.update(grads, params=w). "
            f"Got {1 + len(misplaced)} arguments by position{order}.")


def meant(owner: str, name: str, known: Iterable[str]) -> str:
    """The remedy for a setting that `owner` does not have, as a sentence with a space before it; "" if none is clear.

    >>> meant("AdamW", "betas", ["lr", "beta1", "beta2"]), meant("SGD", "rho", ["lr"])
    (' Write beta1=..., beta2=... in its place.', '')
    >>> meant("SGD", "momentum", ["lr"]), meant("Muon", "momentun", ["lr", "momentum"])
    (' That is an optimizer of its own: fallline.Momentum.', ' Did you mean momentum?')
    """
    from difflib import get_close_matches  # for an error alone

    known = list(known)
    instead = [k for k in known if re.fullmatch(r"beta\d", k)] if name == "betas" else [_SAME.get(name, "")]
    if instead and set(instead) <= set(known):
        return f" Write {', '.join(f'{k}=...' for k in instead)} in its place."
    if name in ("params", "parameters"):
        return f" {REMEDY.capitalize()}."
    if (owner, name) in _VARIANTS:
        return f" That is an optimizer of its own: fallline.{_VARIANTS[owner, name]}."
    if name == "weight_decay" and "lr" in known and "weight_decay.rate" not in known:
        return (" It is a link of a chain: fallline.chain(..., fallline.weight_decay(rate)), as in AdamW; "
                "fallline.chain(fallline.l2(rate), ...) adds it to the gradient.")
    close = get_close_matches(name, [k for k in known if k.count(".") == name.count(".")], 1)
    return f" Did you mean {close[0]}?" if close else ""


def unknown_setting(owner: str, settings: Mapping[str, Any], known: Any, what: str = "hyper-parameter") -> None:
    """Refuse settings that are not known, listing those that are, and what is meant where that is clear."""
    for name in settings:
        if name not in known:
            raise TypeError(f"{owner} has no {what} {name!r}. Known: {', '.join(known) or 'none'}."
                            f"{meant(owner, name, known)}")
