"""Programs of other libraries' users, in clients/: as they are without fallline, and with it."""

import difflib
import itertools

from places import ROOT

CLIENTS = ROOT / "clients"
PROGRAMS = sorted(str(path.relative_to(CLIENTS).with_suffix("")) for path in CLIENTS.glob("*/after*.py"))
"""The programs with fallline, as "lmfit/after"; beside each is the one without it, before.py."""


def program(name):
    """The file of a program."""
    return CLIENTS / f"{name}.py"


def original(name):
    """The file of the program without fallline that `name` was made of."""
    return program(name).parent / "before.py"


def difference(name):
    """What `name` changes in its original: lines out (-), lines in (+), and ... for those that stay."""
    lines = [[line for line in file.read_text().splitlines() if line] for file in (original(name), program(name))]
    marked = (line if line[0] in "-+" else "..." for line in difflib.unified_diff(*lines, n=1, lineterm=""))
    return "\n".join(line for line, _ in itertools.groupby(itertools.islice(marked, 2, None)))


def changed(name):
    """How many lines are new or altered; what is only taken out is not counted."""
    return sum(line.startswith("+") for line in difference(name).splitlines())
