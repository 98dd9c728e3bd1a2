"""The algorithms once more, plainly, as a textbook would print them: what the library is measured against.

Written from the published formulas alone and sharing no code with the library. Everything is computed in float64;
`tiny`, the smallest normal number of the precision under test, stands under every root and division and is the
size below which a stored number becomes 0. Where a formula decays the parameter, `step` takes it as x.
"""

from __future__ import annotations

from reference_further import (
    LAMB,
    LARS,
    AdaBelief,
    Adafactor,
    AdamW,
    Adan,
    AdEMAMix,
    AMSGrad,
    Lion,
    Muon,
    NadamW,
    Prodigy,
    RAdam,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from reference_ten import SGD, AdaDelta, AdaGrad, Adam, AdaMax, Momentum, Nadam, NadaMax, Nesterov, RMSProp

TRANSCRIPTIONS = {
    "SGD": SGD,
    "Momentum": Momentum,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RMSProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
    "AdaMax": AdaMax,
    "Nadam": Nadam,
    "NadaMax": NadaMax,
    "AdamW": AdamW,
    "NadamW": NadamW,
    "Lion": Lion,
    "Rprop": Rprop,
    "AMSGrad": AMSGrad,
    "AdaBelief": AdaBelief,
    "RAdam": RAdam,
    "AdEMAMix": AdEMAMix,
    "Adan": Adan,
    "LARS": LARS,
    "LAMB": LAMB,
    "ScheduleFreeSGD": ScheduleFreeSGD,
    "ScheduleFreeAdamW": ScheduleFreeAdamW,
    "Prodigy": Prodigy,
    "Muon": Muon,
    "Adafactor": Adafactor,
}

SLOTS = {
    "SGD": (),
    "Momentum": ("velocity",),
    "Nesterov": ("velocity",),
    "AdaGrad": ("v",),
    "RMSProp": ("v",),
    "AdaDelta": ("v", "d"),
    "Adam": ("m", "v"),
    "AdaMax": ("m", "u"),
    "Nadam": ("m", "v"),
    "NadaMax": ("m", "u"),
    "AdamW": ("m", "v"),
    "NadamW": ("m", "v"),
    "Lion": ("m",),
    "Rprop": ("last", "rate"),
    "AMSGrad": ("m", "v", "v_max"),
    "AdaBelief": ("m", "s"),
    "RAdam": ("m", "v"),
    "AdEMAMix": ("m1", "m2", "v"),
    "Adan": ("m", "v", "n", "last"),
    "LARS": ("velocity",),
    "LAMB": ("m", "v"),
    "ScheduleFreeSGD": ("z",),
    "ScheduleFreeAdamW": ("v", "z"),
    "Prodigy": ("m", "v", "s", "x0"),
    "Muon": ("m", "v"),
    "Adafactor": ("v", "row", "col"),
}

NUMBERS = {"ScheduleFreeSGD": ("weight", "peak"), "ScheduleFreeAdamW": ("weight", "peak"), "Prodigy": ("r", "d")}
"""State that is one number, of each leaf or of the tree."""
