"""Pictures of a race's report, taken in a real browser: python docs/images/screenshot.py race/report.html OUT.png

The README shows: fallline race, then this with --width 1200 --height 1500 and docs/images/race.png.

Options: --width 390 --dark --select "#curves" --step 120 (of the animation) --browser /usr/bin/chromium
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, help="crop the page to this height; the whole page if left out")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--select", help="a CSS selector: only this part")
    parser.add_argument("--step", type=int, help="where the animation stands")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    take(parser.parse_args())


def take(asked: argparse.Namespace) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.browser, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": asked.width, "height": asked.height or 900},
            device_scale_factor=asked.scale,
            color_scheme="dark" if asked.dark else "light",
        )
        page.goto(asked.report.resolve().as_uri())
        if asked.step is not None:
            page.locator("#step").fill(str(asked.step))
        if asked.select:
            page.locator(asked.select).screenshot(path=asked.out)
        else:
            page.screenshot(path=asked.out, full_page=asked.height is None)
        browser.close()


if __name__ == "__main__":
    main()
