"""Settings of every rule under which it is compared with its transcription: by what a setting is called, as rules call
like things alike. What is not named here stays at its default, or takes the first of OTHERS that its range holds.
"""

from __future__ import annotations

import fallline as fl
from reference_formulas import DEFAULTS

HYPER = {name: cls.rule.hyper for name, cls in fl.OPTIMIZERS.items()}

FAR = {  # from the defaults: a large eps, so that its place in the formula shows
    "lr": 0.3, "momentum": 0.55, "beta": 0.55, "beta1": 0.55, "beta2": 0.85, "beta3": 0.98, "rho": 0.85, "eps": 0.1,
    "weight_decay": 0.3, "eta_minus": 0.25, "eta_plus": 1.75, "min_rate": 0.05, "max_rate": 0.7, "alpha": 2.0,
    "alpha_warmup": 40.0, "beta3_warmup": 90.0, "trust": 0.2, "d0": 0.01, "d_coef": 2.0, "adam_beta1": 0.55,
    "adam_beta2": 0.85, "adam_eps": 0.1, "decay_rate": 0.4, "threshold": 0.5, "eps1": 0.1, "eps2": 0.2,
}  # fmt: skip
OTHERS = (0.3, 1.75, 3)
OWN_FAR = {"Adan": {"beta2": 0.65, "beta3": 0.85}}

ENDS = {  # of the ranges
    "momentum": 0.0, "beta1": 0.0, "rho": 0.0, "eps": 0.0, "weight_decay": 0.0, "eta_minus": 0.0, "eta_plus": 1.0,
    "min_rate": 0.0, "alpha": 0.0, "adam_beta1": 0.0, "adam_eps": 0.0, "decay_rate": 0.0, "eps1": 0.0, "eps2": 0.0,
}  # fmt: skip
OWN_ENDS = {
    "SGD": {"lr": 0.0}, "AdaDelta": {"eps": 1e-2}, "Lion": {"beta2": 0.0}, "AdEMAMix": {"beta3": 0.0},
    "Adan": {"beta2": 0.0}, "ScheduleFreeSGD": {"beta": 1e-3}, "ScheduleFreeAdamW": {"beta1": 1e-3, "beta2": 0.0},
}  # fmt: skip


def far(key, hyper):
    """A value of a setting that is not its default."""
    return FAR[key] if key in FAR else next((v for v in OTHERS if hyper.range.holds(v)), hyper.default)


ODD = {name: {key: far(key, h) for key, h in hyper.items()} | OWN_FAR.get(name, {}) for name, hyper in HYPER.items()}
EDGE = {
    name: {key: ENDS[key] for key, h in hyper.items() if key in ENDS and h.range.holds(ENDS[key])}
    | OWN_ENDS.get(name, {}) for name, hyper in HYPER.items()
}  # fmt: skip
SETTINGS = {"defaults": DEFAULTS, "odd": ODD, "edge": EDGE}
