"""The algorithms once more, plainly, as a textbook would print them: what the library is measured against.

Written from the published formulas alone and sharing no code with the library. Everything is computed in float64;
`tiny`, the smallest normal number of the precision under test, stands under every root and division and is the
size below which a stored number becomes 0. Where a formula names the parameter, `step` takes it as x. A class has the
name of its optimiser, its arguments the names and defaults of the settings, its attributes the names of the state.
"""

from __future__ import annotations

import inspect

import reference_further
import reference_ten

TRANSCRIPTIONS = {
    name: value for module in (reference_ten, reference_further) for name, value in vars(module).items()
    if isinstance(value, type)
}  # fmt: skip
DEFAULTS = {  # as transcribed: the settings and their values
    name: {key: given.default for key, given in list(inspect.signature(cls).parameters.items())[2:]}
    for name, cls in TRANSCRIPTIONS.items()
}
