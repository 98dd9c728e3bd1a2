"""A function to minimize, from a start, and one that counts its calls."""

import numpy as np

CENTRE = np.array([1.0, -2.0, 0.5])
START = np.array([3.0, 1.0, -1.0])


def bowl(x, centre=CENTRE):
    return float(((x - centre) ** 2).sum())


def bowl_der(x, centre=CENTRE):
    return 2 * (x - centre)


def bowl_both(x, centre=CENTRE):
    return bowl(x, centre), bowl_der(x, centre)


def steps(**options):
    """Options of so many steps that nothing else stops."""
    return {"gtol": 0.0, **options}


class Counted:
    """A function that counts its calls and keeps every x it was given, and a copy."""

    def __init__(self, function):
        self.function, self.kept, self.copies = function, [], []

    def __call__(self, x, *args):
        self.kept.append(x)
        self.copies.append(np.array(x))
        return self.function(x, *args)
