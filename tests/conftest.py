"""What all tests share: peers that may be missing, skipped by name, and never silently with FALLLINE_TEST_ALL=1."""

import importlib
import os
import shutil
import signal

import pytest

ALL = os.environ.get("FALLLINE_TEST_ALL") == "1"

# What a shell runs in the background ignores Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """Leave out the combinations of optimiser and dtype that support.DRAWN leaves out, and what rules of whole leaves
    do not promise."""
    from support import COMPLEX, DRAWN, NOT_OF_WHOLE_LEAVES, WHOLE_LEAF

    def drawn(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name = params.get("name", getattr(params.get("cls"), "__name__", None))
        if not isinstance(name, str):
            return True
        refused = params.get("dtype") in COMPLEX or params.get("engine") == "eager"
        if name in WHOLE_LEAF and (refused or item.originalname in NOT_OF_WHOLE_LEAVES):
            return False
        return ALL or name not in DRAWN or "dtype" not in params or str(params["dtype"]) in DRAWN[name]

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
