"""Every rule and modifier: formulas over coordinates, and functions of whole leaves.

What a file of this room defines is a name here: nothing has to be listed.
"""

import importlib

from fallline._formula.rule import Rule
from fallline._messages.suggestions import meant_within
from fallline.rules.formulas import *  # noqa: F403
from fallline.rules.formulas import at_rest, looked_ahead  # noqa: F401  (points of Nesterov's method, no rules)
from fallline.rules.further import *  # noqa: F403
from fallline.rules.matrices import *  # noqa: F403
from fallline.rules.modifiers import *  # noqa: F403
from fallline.rules.modifiers import gathered  # noqa: F401  (what `accumulate` holds, no rule)

__all__ = sorted(["at_rest", "gathered", "looked_ahead", *(n for n, v in globals().items() if isinstance(v, Rule))])


def __getattr__(name: str) -> Rule:
    # those of other libraries, which take a while; not by `from ... import`, which asks here first
    rule = vars(importlib.import_module("fallline.rules.dialects")).get(name) if name != "dialects" else None
    if not isinstance(rule, Rule):
        hint = "" if name.startswith("_") else meant_within(name, __all__)
        raise AttributeError(f"module 'fallline.rules' has no attribute {name!r}.{hint}", name=name)
    return rule


def __dir__() -> list[str]:
    return __all__
