"""What a release goes by agrees: versions of Python, the version, and what the workflows call."""

from __future__ import annotations

import re
import tomllib

import fallline as fl
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_the_versions_of_python_are_the_same_wherever_they_stand():
    minors = [int(text.rsplit(".", 1)[1]) for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    (matrix,) = re.findall(r"^ +python: \[(.*)\]$", WORKFLOWS["ci"], re.MULTILINE)
    assert re.findall(r"[\d.]+", matrix) == [f"3.{minor}" for minor in minors]
    named = {version for text in WORKFLOWS.values() for version in re.findall(r'python(?:-version)?: "(.*?)"', text)}
    assert named <= {f"3.{minor}" for minor in minors}
    (oldest,) = re.findall(r'python-version: "3\.(\d+)"\n[^#]*?lowest-direct', WORKFLOWS["ci"])
    assert int(oldest) == minors[0]


def test_workflows_run_what_there_is():
    text = "\n".join(WORKFLOWS.values())
    for path in re.findall(r"(?:\./)?(\.(?:ci|github)/[\w./-]+)", text):
        assert (ROOT / path).exists(), path
    for extras in re.findall(r'"\.\[([\w,]+)\]"', text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert '-m "not slow"' in text
    assert text.count("fallline digests") == text.count('-m "not slow"'), "the bits are compared wherever tests run"


def test_every_place_has_the_version():
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1]
    noted = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert cited == noted == fl.__version__
