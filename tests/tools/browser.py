"""A real browser, in which pages and scripts run."""

import json
import time
from contextlib import contextmanager

from needed import need, need_chromium

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@contextmanager
def a_browser():
    """Chromium, which takes a second to start."""
    playwright = need("playwright.sync_api")
    path = need_chromium()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def a_page(browser, **settings):
    """A page, with the settings of Playwright's `new_page`; an error in one of its scripts fails the test, and so does
    a request to any host."""
    faults = []
    page = browser.new_page(**settings)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:", "about:"))
            else faults.append(f"asked for {request.url}"))
    yield page
    page.close()
    assert not faults, faults


def evaluated(script, expression, given=None):
    """The value of an expression of the names of a script (and of `given`), in a browser, as JSON has it: numbers to
    the bit."""
    with a_browser() as browser, a_page(browser) as page:
        page.add_script_tag(content=script)
        return json.loads(page.evaluate(f"(given) => JSON.stringify({expression})", given))


def until(page, expression, seconds=30):
    """Wait until an expression holds in a page, which need not allow scripts of strings."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not within {seconds} s: {expression}"
        page.wait_for_timeout(20)
