"""What may be missing: peers and a browser, asked for by name. A test without what it needs is skipped, or fails."""

import importlib
import importlib.util
import os
import shutil

import pytest

ALL = os.environ.get("FALLLINE_TEST_ALL")


def missing(what: str) -> None:
    """Skip for want of something, or fail."""
    if ALL:
        pytest.fail(f"{what} is missing, and FALLLINE_TEST_ALL={ALL} allows no skip")
    pytest.skip(f"{what} is not installed", allow_module_level=True)


def need(module: str):
    """The peer library, or a skip by its name, of a test or, where a file asks for it, of all its tests."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return missing(module)


def need_for_a_process(*modules: str) -> None:
    """As `need`, of what only another process imports."""
    for module in modules:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            missing(module)


def need_chromium() -> str:
    """The path of a Chromium browser, or a skip by its name."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return missing("chromium")
