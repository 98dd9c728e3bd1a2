"""Look at a built site as readers do, in a browser: python docs/look.py SITE [PICTURES]

Every page on a phone; what scrolls sideways, fails, or asks something of another host is said, and the exit code is 1.
With a folder for pictures, every page on a phone and a desktop, in light and dark, as PNG.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


def look(browser: Browser, site: Path, pictures: Path | None, scheme: str, screen: str) -> list[str]:
    """What is amiss on that screen."""
    width, height = SIZES[screen]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    found: list[str] = []
    page.on("console", lambda message: message.type == "error" and found.append(f"{page.url}: {message.text}"))
    page.on("request", lambda asked: asked.url.startswith("http") and found.append(f"{page.url} asks {asked.url}"))
    for file in sorted(set(site.rglob("*.html")) - set(site.glob("_static/**/*.html"))):
        page.goto(file.as_uri())
        page.evaluate("window.MathJax?.startup?.promise")  # until formulas are drawn
        if (needed := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{page.url} is {needed} pixels wide on a {screen} of {width}")
        if pictures:
            name = "-".join([*file.relative_to(site).with_suffix("").parts, scheme, screen])
            page.screenshot(path=pictures / f"{name}.png", full_page=True)
    page.close()
    return found


def main(site: Path, pictures: Path | None = None) -> int:
    views = [(scheme, screen) for scheme in ("light", "dark") for screen in SIZES] if pictures else [("light", "phone")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                                             args=ARGUMENTS)  # fmt: skip
        found = [line for view in views for line in look(browser, site.resolve(), pictures, *view)]
        browser.close()
    for line in found:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
