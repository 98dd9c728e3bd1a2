"""A real browser, in which pages and scripts run."""

import json
from contextlib import contextmanager

from needed import need, need_chromium

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@contextmanager
def a_page(**settings):
    """A page of Chromium, with the settings of Playwright's `new_page`; an error in one of its scripts fails the test,
    and so does a request to any host."""
    playwright = need("playwright.sync_api")
    path = need_chromium()
    faults = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page(**settings)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:", "about:"))
                else faults.append(f"asked for {request.url}"))
        yield page
        browser.close()
    assert faults == []


def evaluated(script, expression, given=None):
    """The value of an expression of the names of a script (and of `given`), in a browser, as JSON has it: numbers to
    the bit."""
    with a_page() as page:
        page.add_script_tag(content=script)
        return json.loads(page.evaluate(f"(given) => JSON.stringify({expression})", given))
