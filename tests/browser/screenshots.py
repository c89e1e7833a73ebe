"""Photograph the dashboard on the committed artifacts, with the live model.

python tests/browser/screenshots.py              README's animation and two pictures, into assets/
python tests/browser/screenshots.py --all out/   every tab, light and dark, wide and narrow
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

README = (("live", "light"), ("accuracy", "dark"))
WIDTHS = (1280, 375)
HELD = """const {animate} = Element.prototype;
Element.prototype.animate = function (...given) {
  const started = animate.apply(this, given);
  started.pause();
  return started;
};"""
SEEK = "(milliseconds) => { for (const one of document.getAnimations()) one.currentTime = milliseconds; }"
"""Animations that the browser runs do not follow the page's clock: they are held, and moved by hand."""


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


def animate(page: Any, url: str, path: Path) -> None:
    """Both models read a sample, then 25,000 reviews move: frames by the page's own clock, as a WebP."""
    frames, milliseconds = [], []

    def film(seconds: float, step: int = 80) -> None:
        for frame in range(round(1000 * seconds / step)):
            page.clock.run_for(step)
            page.evaluate(SEEK, frame * step)
            frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
            milliseconds.append(step)

    page.add_init_script(HELD)
    page.clock.install()
    page.goto(f"{url}?tab=live&__theme=light")
    settle(page, "live")
    page.get_by_role("button", name="It starts badly").click()
    page.mouse.move(0, 0)  # over no row, whose numbers would show
    page.locator("#trace li", has_text="the film finds its feet").wait_for()
    page.evaluate("scrollTo({top: 330, behavior: 'instant'})")
    page.wait_for_timeout(500)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    film(1.2)
    milliseconds[-1] = 2500
    page.clock.resume()
    page.get_by_role("tab", name="Accuracy").click()
    settle(page, "accuracy")
    page.evaluate("scrollTo({top: 330, behavior: 'instant'})")
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    film(0.1)
    milliseconds[-1] = 1500
    page.get_by_role("button", name="after fine-tuning").click()
    film(1.8)
    milliseconds[-1] = 3000
    first, *rest = frames
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, quality=60, method=4)
    print(f"{path}, {path.stat().st_size / 1e6:.2f} MB")


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
            page = browser.new_page(viewport={"width": 1000, "height": 960})
            animate(page, url, ROOT / "assets" / "dashboard.webp")
        browser.close()
    demo.close()


if __name__ == "__main__":
    main()
