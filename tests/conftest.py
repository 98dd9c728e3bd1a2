"""What all tests share: peers that may be missing, skipped by name, and never silently with FALLLINE_TEST_ALL.

With FALLLINE_TEST_ALL=1 a skip is a failure. With FALLLINE_TEST_ALL=rest too, and what passed in the run before, in the
same tree and with the same versions of what was installed, is left out: the two runs together pass every test. A test
that peers can change asks for them by `need`; without them it is skipped, not passed.
"""

import signal
import sys
from importlib.metadata import distributions
from importlib.util import find_spec

import pytest

from fallline._engines.engine import native_missing
from needed import ALL, need
from support import is_one_of_many, suits

REST = ALL == "rest"
OF_NATIVE_CODE = ["arrays/test_precision.py", "contracts/test_memory.py", "engines/test_agreement.py", "step"]
collect_ignore = [
    *([] if find_spec("torch") else ["tools/torch_database.py"]),  # a script, which has no doctests
    *(OF_NATIVE_CODE if native_missing() else []),
]
collect_ignore_glob = ["tools/*_of_ranks.py", "tools/sharded.py"]  # programs, likewise, that run where imported
BEFORE = "fallline/run"  # where pytest's cache has the last run
INSTALLERS = ("pip", "setuptools", "wheel")  # which no test runs: torch brings a newer setuptools

# What a shell runs in the background ignores Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def installed() -> list[str]:
    """What is installed, with its version."""
    return sorted(f"{found.name} {found.version}" for found in distributions() if found.name not in INSTALLERS)


def passed_before(config) -> set[str]:
    """The tests of the last run that passed, unless something that was installed then has been replaced."""
    before = config.cache.get(BEFORE, None)
    return set(before["passed"]) if set(before["installed"]) <= set(installed()) else set()


def pytest_configure(config):
    if REST and config.cache.get(BEFORE, None) is None:
        raise pytest.UsageError("FALLLINE_TEST_ALL=rest runs what the run before has not passed, and there was none")


@pytest.hookimpl(tryfirst=True)  # before the tests that are marked are chosen
def pytest_collection_modifyitems(config, items):
    passed = passed_before(config) if REST else ()
    kept, out = [], []
    for item in items:
        if is_one_of_many(item):
            item.add_marker("slow")
        (kept if suits(item) and item.nodeid not in passed else out).append(item)
    config.hook.pytest_deselected(items=out)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Where there is no native engine, a test that asks for it is skipped."""
    try:
        return (yield)
    except ImportError:
        if native_missing():
            need("llvmlite")
        raise


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With FALLLINE_TEST_ALL a skip of any other kind is a failure too."""
    report = (yield).get_result()
    if ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and FALLLINE_TEST_ALL={ALL} allows no skip: {report.longrepr}"


def pytest_terminal_summary(terminalreporter, config):
    """Note what passed, for a run of the rest."""
    if not REST and hasattr(config, "cache"):
        passed = [report.nodeid for report in terminalreporter.stats.get("passed", ())]
        config.cache.set(BEFORE, {"passed": passed, "installed": installed()})


@pytest.fixture(autouse=True)
def floats_of_keras():
    """Keras's dtype, which tests and pages set, and which it keeps as a policy, is the default for the next test."""
    yield
    if keras := sys.modules.get("keras"):
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint may be saved."""
    return tmp_path / "run.safetensors"
