"""How close the eager engine keeps to the others."""

import numpy as np

import fallline as fl
from support import limits

# What docs/reliability.md states of the eager engine, in units of the dtype's eps: an increment and the state relative
# to their size, parameters to theirs or to 0.01. (torch's square root is an ulp off.)
TOLERANCE = {"increment": 16, "state": 16, "parameter": 64}
# Increments and state that are a difference of larger numbers, or may be: of these to the largest of the leaf.
DIFFERENCES = (fl.Adan, fl.LARS, fl.ScheduleFreeSGD, fl.ScheduleFreeAdamW, fl.Prodigy)


def as_complex(array):
    array = array.float() if str(getattr(array, "dtype", "")) == "torch.bfloat16" else array
    return np.asarray(array).astype(np.complex128)


def assert_within(what, found, wanted, eps, floor):
    found, wanted = as_complex(found), as_complex(wanted)
    allowed = TOLERANCE[what] * eps * np.maximum(np.abs(wanted), floor)
    assert np.all(np.abs(found - wanted) <= allowed), what


def floor(cls, wanted):
    """The size that smaller numbers are held to."""
    return float(np.abs(wanted).max()) if cls in DIFFERENCES else float(limits(wanted.dtype).tiny)
