"""What docs/architecture.md says of the sources is so: names, floors, the functions of its walks, and its diffs."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement

import fallline as fl
from needed import need
from places import DATA, DOCS, ROOT
from support import output_of, run_alone, start_alone

SOURCES = ROOT / "src" / "fallline"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)
PATHS = [span for span in SPANS if re.fullmatch(r"\w[\w/]*(\.py|\.md|\.toml)?(::[\w.]+)?", span)
         and re.search(r"\.(py|md|toml)\b|/", span) and not span.startswith("file.py")]  # which stands for any
WORDS = [span for span in SPANS if re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?", span) and span not in PATHS]
ELSEWHERE = {"tool.importlinter"}
WALKS = re.findall(r"## The life of [^\n]+\n(.*?)(?=\n## )", PROSE, re.DOTALL)
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)


def at(path):
    """Where a path of the page leads."""
    return next((place for place in (SOURCES / path, ROOT / path) if place.exists()), None)


def names_in(file):
    """All that a file defines, in classes by their name and a dot."""
    found = set()

    def note(body, before):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(before + node.name)
            if isinstance(node, ast.ClassDef):
                note(node.body, f"{before}{node.name}.")
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            found.update(before + target.id for target in targets if isinstance(target, ast.Name))

    note(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def test_every_path_and_every_name_in_a_file_is_there():
    assert len(PATHS) > 80
    for span in PATHS:
        path, _, name = span.partition("::")
        assert at(path), span
        assert not name or name in names_in(at(path)), span


def test_every_other_name_is_one_of_the_sources():
    text = "\n".join(file.read_text(encoding="utf-8") for file in SOURCES.rglob("*.py"))
    known = {*re.findall(r"\w+", text), *(path.name for path in ROOT.iterdir())}
    for span in {*WORDS} - ELSEWHERE:
        assert {*span.removesuffix("()").split(".")} <= known, span


def test_every_room_is_on_the_page_and_floors_are_those_that_are_checked():
    drawn = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    floors, race, engines = (contract["layers"] for contract in config[:3])
    assert [re.split(r"\s{3,}", line)[0] for line in drawn] == floors
    assert " > ".join(race) in drawn[floors.index("race")]
    assert next(line for line in drawn if line.startswith("rules")).endswith(f"of the engines: {' > '.join(engines)}")
    told = {cell.strip() for row in re.findall(r"^\| (`.*?) \|", PROSE, re.MULTILINE) for cell in row.split("`")[1::2]}
    rooms = {p.name for p in SOURCES.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__.py", "__main__.py"} <= told
    for inner in SOURCES.glob("*/*/__init__.py"):
        assert inner.parent.relative_to(SOURCES).as_posix() in SPANS, inner


WALKED = """
import json, os, sys, tempfile

called = set()

def note(frame, event, _):
    if event == "call" and "fallline" in frame.f_code.co_filename:
        called.add((frame.f_code.co_filename, frame.f_code.co_qualname))

import numpy as np
import fallline as fl
from fallline.cli import main
sys.setprofile(note)

@fl.rule
def signed(g, m=0, *, lr: fl.NonNegative = 0.1):
    return -lr*fl.sign(m + g), m + g

signed._repr_html_()

w, g = np.ones(100_000), np.ones(100_000)
for opt in (fl.Adam(), fl.Adam(lr=lambda t: 0.1), fl.Adam(engine="reference"), fl.Optimizer(signed, lr=0.5)):
    for _ in range(3):
        opt.step(w, g)
    opt.step(w.copy(), g)
m = np.ones((3, 3))
fl.Muon().step(m, m.copy())
fl.SGD(engine="eager").step(m, m.copy())
with np.errstate(all="ignore"):
    fl.SGD(nonfinite="skip").step(w, g*np.nan)

with tempfile.TemporaryDirectory() as folder:
    file = os.path.join(folder, "a.safetensors")
    opt.save(file, w)
    opt.state_dict()
    opt.load(file)
    again, w = fl.load(file, rules=[signed])
    again.step(w, g)

fl.race.run("bowl", optimizers=["SGD", lambda params, grads: params], steps=1, repeats=1, jobs=1, surfaces=())
with tempfile.TemporaryDirectory() as folder:
    sys.argv = ["fallline", "race", "--out", folder, "--problem", "bowl", "--optimizers", "SGD,Adam", "--steps", "2",
                "--repeats", "2", "--jobs", "1"]
    try:
        main()
    except SystemExit as end:
        assert not end.code
sys.setprofile(None)
print("\\n" + json.dumps(sorted(called)))
"""


@pytest.mark.slow
def test_every_function_that_a_walk_names_is_called():
    called = {tuple(pair) for pair in json.loads(run_alone(WALKED).splitlines()[-1])}
    named = {span for walk in WALKS for span in re.findall(r"`([\w/]+\.py::[\w.]+)`", walk)}
    functions = {(str(SOURCES / path), name) for path, name in (span.split("::") for span in named)
                 if name.rpartition(".")[2][0] in "abcdefghijklmnopqrstuvwxyz_"}
    assert len(functions) > 40
    assert sorted(functions - called) == []


@pytest.fixture
def changed(tmp_path):
    """Runs a script with a copy of the sources to which a diff of the page was applied."""
    def run(diff, script, *arguments):
        shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "diff").write_text(diff, encoding="utf-8")
        subprocess.run(["git", "apply", "diff"], cwd=tmp_path, check=True, capture_output=True,
                       env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)})
        return output_of(start_alone(script, *arguments, PYTHONPATH=str(tmp_path / "src")))
    return run


TRAJECTORY = """
import sys
import numpy as np, fallline as fl

def walked(engine):
    opt = fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), engine=engine)
    w = {"a": np.linspace(-1, 1, 7), "b": np.ones((2, 3), np.float32)[:, ::2], "c": np.ones(3, np.complex64)}
    for t in range(5):
        w = opt.step(w, {k: (t + 1)*x for k, x in w.items()})
    return opt, b"".join(x.tobytes() for x in w.values())
"""


def test_an_engine_is_a_folder_and_a_line(changed):
    need("llvmlite")
    new, line = re.split(r"^(?=--- a/)", DIFFS[0], flags=re.MULTILINE)
    assert new.startswith("--- /dev/null\n")
    assert len(re.findall(r"^[+-] ", line, re.MULTILINE)) == 1
    said = changed(DIFFS[0], TRAJECTORY + """
opt, bits = walked("counted")
assert bits == walked("reference")[1] == walked("native")[1]
from fallline._engines.counted import RAN
print(fl.__file__, opt.engine, dict(RAN), sep="\\n")
""").splitlines()
    assert str(ROOT) not in said[0]
    assert said[1:] == ["counted: asked for", "{'float64': 10, 'float32': 20}"]


def test_a_field_of_a_checkpoint_is_one_place(changed, tmp_path):
    fl.SGD().save(tmp_path / "now.safetensors")
    files = [tmp_path / "now.safetensors", *sorted(DATA.glob("fresh-*.safetensors"))]
    assert DIFFS[1].count("+++ ") == 1
    said = changed(DIFFS[1], """
import os, sys
import fallline as fl

folder, *older = sys.argv[1:]
opt = fl.Adam()
w = opt.step(1.0, 1.0)
opt._stepper.seconds = 1.5
d = opt.state_dict()
print(d["format"], d["seconds"])
other = fl.Adam()
other.load_state_dict(d)
opt.save(os.path.join(folder, "new"), w)
again, v = fl.load(os.path.join(folder, "new"))
print(other._stepper.seconds, again._stepper.seconds, again.step(v, 1.0) == opt.step(w, 1.0))
again.reset()
print(again._stepper.seconds, *[fl.load(file)._stepper.seconds for file in older])
try:
    other.load_state_dict({**d, "seconds": -1.0})
except ValueError as error:
    print(error)
""", str(tmp_path), *map(str, files))
    assert said.splitlines() == [
        "2 1.5", "1.5 1.5 True", " ".join(["0.0"] * (1 + len(files))),
        "seconds of the state must be a time of at least 0.0. Got -1.0."]


def test_a_dtype_is_a_row_and_words_for_native_code(changed):
    need("llvmlite")
    need("ml_dtypes")
    assert DIFFS[2].count("+++ ") == 2
    said = changed(DIFFS[2], """
import os, tempfile
import numpy as np, ml_dtypes, fallline as fl

every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e5m2)
finite = every[np.isfinite(every.astype(np.float32))]
rng = np.random.default_rng(0)
gradients = [rng.permutation(finite) for _ in range(20)]

def walked(engine, lr):
    opt, w = fl.Momentum(lr, engine=engine), finite.copy()
    for g in gradients:
        w = opt.step(w, g)
    return opt, w

for lr in (1e-3, 1.0, 100.0):
    assert walked("native", lr)[1].tobytes() == walked("reference", lr)[1].tobytes()
opt, w = walked("native", 0.1)
with tempfile.TemporaryDirectory() as folder:
    opt.save(os.path.join(folder, "a"), w)
    again, v = fl.load(os.path.join(folder, "a"))
print(opt.engine, opt.state["velocity"].dtype, v.dtype, v.tobytes() == w.tobytes())
""")
    assert said == "native: asked for float32 float8_e5m2 True\n"


def test_the_second_environment_is_locked():
    lines = (ROOT / ".ci" / "clients.lock").read_text(encoding="utf-8").splitlines()
    locked = {pin.name: pin.specifier for pin in map(Requirement, filter(lambda line: line[0] != "#", lines))}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = [Requirement(text) for extra in ("test", "race", "clients", "frameworks") for text in extras[extra]]
    for requirement in (of for of in asked if of.name != "fallline"):
        (pin,) = locked[requirement.name]
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), requirement.name
