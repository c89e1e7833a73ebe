"""Photograph the dashboard on the committed artifacts, with the live model.

python tests/browser/screenshots.py              two pictures for README, into assets/
python tests/browser/screenshots.py --all out/   every tab, light and dark, wide and narrow
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

README = (("live", "light"), ("accuracy", "dark"))
WIDTHS = (1280, 375)


def settle(page: Any, tab: str) -> None:
    """Wait for the figures of a tab, and on the live tab for the answer."""
    page.wait_for_selector("#stats .num")
    if tab == "live":
        page.locator("#trace h3", has_text="the base model").wait_for(timeout=120_000)
    elif tab == "loss":
        page.locator("#loss-plot output", has_text="reviews seen").wait_for()
    elif tab in ("accuracy", "confusion"):
        page.locator(".js-plotly-plot:visible").first.wait_for()
    page.wait_for_timeout(2500)


def photograph(page: Any, url: str, tab: str, theme: str, path: Path, *, whole: bool) -> None:
    page.goto(f"{url}?tab={tab}&__theme={theme}")
    settle(page, tab)
    page.screenshot(path=path, full_page=whole)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="every tab, into this folder")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from sentiment_core.dashboard import app as dashboard

    demo = dashboard.build()
    _, url, _ = dashboard.launch(demo, prevent_thread_lock=True, quiet=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if arguments.all:
            arguments.all.mkdir(parents=True, exist_ok=True)
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 900})
                for tab in dashboard.TABS:
                    for theme in ("light", "dark"):
                        path = arguments.all / f"{tab}-{theme}-{width}.png"
                        photograph(page, url, tab, theme, path, whole=True)
        else:
            page = browser.new_page(viewport={"width": 1280, "height": 1100})
            for tab, theme in README:
                path = ROOT / "assets" / f"dashboard-{tab}.png"
                photograph(page, url, tab, theme, path, whole=False)
        browser.close()
    demo.close()


if __name__ == "__main__":
    main()
