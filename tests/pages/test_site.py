"""The documentation site, as far as it can be judged without being built; `.ci/docs` builds it."""

import importlib
import re

import pytest

import fallline as fl
from needed import need_for_a_process
from places import DOCS

API = {file.name: file.read_text(encoding="utf-8") for file in sorted((DOCS / "api").glob("*.md"))}
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
EXECUTED = [*TUTORIALS, DOCS / "when-not.md"]
BROAD = 94  # characters that a cell has room for on a desktop
MODULES = ["fallline", "fallline.schedules", "fallline.race", "fallline.playground", "fallline.ops", "fallline.torch",
           "fallline.optax", "fallline.keras", "fallline.mpi",
           *(f"fallline.dialects.{library}" for library in fl.dialects.LIBRARIES)]  # fmt: skip


def entries():
    """What the API pages have an entry for, by its full name; a module with its members stands for all of them."""
    found = {f"fallline.{name}" for name in fl.OPTIMIZERS}  # which conf.py writes from this table
    for text in API.values():
        for name in re.findall(r"^\.\. auto(?:class|function|exception|data):: (\S+)", text, re.MULTILINE):
            found.add(name)
        for name, module in re.findall(r"^\.\. py:data:: (\S+)\n   :module: (\S+)", text, re.MULTILINE):
            found.add(f"{module}.{name}")
        for module, options in re.findall(r"^\.\. (?:auto|py:)module:: (\S+)\n((?:   .*\n)*)", text, re.MULTILINE):
            found.add(module)
            if ":members:" in options:
                found |= {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    return found


def test_every_public_name_has_an_entry_and_every_entry_is_public():
    need_for_a_process("torch", "optax", "keras", "mpi4py")
    public = {f"{module}.{name}" for module in MODULES for name in importlib.import_module(module).__all__}
    words = {f"fallline.{name}" for name in fl.ops.__all__}  # which have theirs as fallline.ops.name
    found = entries()
    assert sorted(public - words - found) == []
    private = {name for name in found if "._" in name}  # of what loops return
    assert sorted(found - public - private - {*MODULES, "fallline.dialects"}) == []


def test_every_page_of_the_api_is_in_its_table_of_contents():
    assert {f"{name}.md" for name in re.findall(r"^(\w+)$", API["index.md"], re.MULTILINE)} == {*API} - {"index.md"}


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.stem)
def test_a_page_that_runs_says_so_and_its_code_fits_beside_the_text(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\n")
    cells = re.findall(r"^```\{code-cell\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(cells) >= 2
    shown = [cell for cell in cells if not cell.startswith(":tags: [hide-input]")]
    assert [line for cell in shown for line in cell.splitlines() if len(line) > BROAD] == []
