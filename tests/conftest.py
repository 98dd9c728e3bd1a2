"""What all tests share: peers that may be missing, skipped by name, and never silently with FALLLINE_TEST_ALL=1."""

import importlib
import os
import shutil

import pytest

ALL = os.environ.get("FALLLINE_TEST_ALL") == "1"


def _missing(what: str) -> None:
    if ALL:
        pytest.fail(f"{what} is missing, and FALLLINE_TEST_ALL=1 allows no skip")
    pytest.skip(f"{what} is not installed")


def need(module: str):
    """The peer library, or a skip by its name."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return _missing(module)


def need_chromium() -> str:
    """The path of a Chromium browser, or a skip by its name."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return _missing("chromium")


def pytest_collection_modifyitems(config, items):
    """Leave out the combinations of optimiser and dtype that support.DRAWN leaves out."""
    if ALL:
        return
    from support import DRAWN

    def drawn(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        drawn = DRAWN.get(params.get("name")) if isinstance(params.get("name"), str) else None
        return drawn is None or "dtype" not in params or str(params["dtype"]) in drawn

    out = [item for item in items if not drawn(item)]
    items[:] = [item for item in items if drawn(item)]
    config.hook.pytest_deselected(items=out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With FALLLINE_TEST_ALL=1 a skip of any other kind is a failure too."""
    report = (yield).get_result()
    if ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and FALLLINE_TEST_ALL=1 allows no skip: {report.longrepr}"
