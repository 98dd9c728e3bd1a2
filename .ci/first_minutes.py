"""What a stranger types in the first ten minutes, from a wheel, in an empty environment, without a clone: python
.ci/first_minutes.py WHEEL [--race]

Prints a Markdown table of each command, its seconds and what came; the exit code is 1 if anything came but what should
come. With --race the extra is installed too, and the race is run as it stands.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WIDEST = 100  # of what came


class Step(NamedTuple):
    """What is typed, a pattern of a line that must come, the exit code, and what is run in place of what is typed."""

    typed: str
    comes: str
    code: int = 0
    alias: str = ""


def python(program: str, comes: str, code: int = 0) -> Step:
    return Step(f"python -c {shlex.quote(program)}", comes, code)


def base(wheel: Path) -> list[Step]:
    """With the library alone."""
    return [
        Step("pip install fallline", "^Successfully installed", alias=f"pip install {shlex.quote(str(wheel))}"),
        Step("python first.py   # README's first block", "^done", alias="python first.py"),
        python("import fallline as fl; print(fl.Adam(lr=0.1))", r"^Adam\(lr=0.1"),
        python("import fallline as fl; help(fl.Adam)", "^class Adam"),
        Step("fallline", "^Usage: fallline COMMAND"),
        Step("fallline --version", r"^fallline \d"),
        Step("fallline --help", "^  digests "),
        Step("fallline digests", r"^All \d+ are those of the table"),
        Step("fallline playground", "^Page: play.html"),
        Step("fallline race", r'^fallline: .*pip install "fallline\[race\]"$', 2),
        Step("fallline rcae", "^fallline: there is no command 'rcae'", 2),
        python("import fallline as fl; fl.Adam(learning_rate=0.1)", "learning_rate.* lr", 1),
        python("import fallline as fl; fl.adagrad", "Did you mean AdaGrad", 1),
    ]


def with_race(wheel: Path) -> list[Step]:
    """With the extra."""
    return [
        Step("pip install 'fallline[race]'", "^Successfully installed",
             alias=f"pip install {shlex.quote(f'{wheel}[race]')}"),
        Step("fallline race --help", "Usage: fallline race"),
        Step("fallline race", "^Report: race"),
        Step("fallline race --problem digit", "^fallline: problem must be one of digits", 2),
        Step("fallline race --optimizers Adamm", "^fallline: optimizers must be among .*Did you mean Adam", 2),
    ]


def go(steps: list[Step]) -> int:
    """Take the steps and print the table; returns how many went wrong."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{machine}, Python {platform.python_version()}.\n")
    print("| typed | seconds | exit | what came |", "|---|---|---|---|", sep="\n")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        scripts = place / "env" / ("Scripts" if os.name == "nt" else "bin")
        block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        (place / "first.py").write_text(f"{block[1] if block else ''}\nprint('done')\n", encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        for step in steps:
            began = time.perf_counter()
            program, *rest = shlex.split(step.alias or step.typed)
            ended = subprocess.run([shutil.which(program, path=str(scripts)) or program, *rest], cwd=place, env=kept,
                                   encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            seconds, lines = time.perf_counter() - began, ended.stdout.splitlines() or [""]
            came = next((line for line in lines if re.search(step.comes, line)), None)
            if came is None or ended.returncode != step.code:
                wrong += 1
                came = f"**{lines[-1]}**"
            shown = came.strip() if len(came) <= WIDEST else f"{came.strip()[:WIDEST]} ..."
            cells = (f"`{step.typed}`", f"{seconds:.1f}", str(ended.returncode), shown.replace("|", r"\|"))
            print(f"| {' | '.join(cells)} |", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--race", action="store_true", help="with the extra, too")
    asked = parser.parse_args()
    wheel = asked.wheel.resolve()
    sys.exit(bool(go(base(wheel) + (with_race(wheel) if asked.race else []))))


if __name__ == "__main__":
    main()
