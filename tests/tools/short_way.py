"""What tests of the short way share."""

import numpy as np


def spread(array):
    """The same numbers in every other place of memory, backwards."""
    wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)
    view = wide[tuple(slice(None, None, -2) for _ in array.shape)]
    view[...] = array
    return view


def long_way(*_):
    raise AssertionError("the call went the long way")
