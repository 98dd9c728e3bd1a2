"""Every rule and modifier: formulas over coordinates, and functions of whole leaves."""

from fallline.rules.formulas import (
    adadelta,
    adagrad,
    adam,
    adamax,
    at_rest,
    looked_ahead,
    momentum,
    nadam,
    nadamax,
    nesterov,
    rmsprop,
    sgd,
)
from fallline.rules.further import (
    adabelief,
    adamw,
    adan,
    ademamix,
    amsgrad,
    lamb,
    lars,
    lion,
    nadamw,
    prodigy,
    radam,
    rprop,
    schedule_free_adamw,
    schedule_free_sgd,
)
from fallline.rules.matrices import adafactor, muon
from fallline.rules.modifiers import (
    accumulate,
    average,
    clip_norm,
    clip_value,
    gathered,
    l2,
    maximize,
    weight_decay,
)

__all__ = [
    "accumulate", "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "adan", "ademamix",
    "amsgrad", "at_rest", "average", "clip_norm", "clip_value", "gathered", "l2", "lamb", "lars", "lion",
    "looked_ahead", "maximize", "momentum", "muon", "nadam", "nadamax", "nadamw", "nesterov", "prodigy", "radam",
    "rmsprop", "rprop", "schedule_free_adamw", "schedule_free_sgd", "sgd", "weight_decay",
]  # fmt: skip
