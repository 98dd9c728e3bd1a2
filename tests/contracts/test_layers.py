"""The rooms of the house: each imports from the floors below alone, and files of a room form no circle.

The order of the floors stands in pyproject.toml ([tool.importlinter]); `lint-imports` shows the same.
"""

import subprocess
import sys
from pathlib import Path

import fallline
from needed import need_for_a_process

ROOT = Path(fallline.__file__).parent
CONFIG = Path(__file__).parents[2] / "pyproject.toml"
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
MOST = 12  # files of a folder, not counting what opens it


def linted(config):
    need_for_a_process("importlinter")
    return subprocess.run([*LINT, "--config", str(config)], capture_output=True, text=True, check=False)


def test_every_room_imports_only_from_the_floors_below():
    found = linted(CONFIG)
    assert found.returncode == 0, found.stdout


def test_an_import_of_a_room_above_is_found(tmp_path):
    config = tmp_path / "pyproject.toml"
    swapped = CONFIG.read_text().replace('"_step"', '"x"').replace('"_formula"', '"_step"').replace('"x"', '"_formula"')
    config.write_text(swapped)
    found = linted(config)
    assert found.returncode == 1
    assert "fallline._step.group -> fallline._formula" in found.stdout


def test_folders_are_no_deeper_than_three_and_hold_no_more_than_can_be_overlooked():
    for folder in {path.parent for path in ROOT.rglob("*.py")}:
        assert len(folder.relative_to(ROOT.parent).parts) <= 3, folder
        assert len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) <= MOST, folder
