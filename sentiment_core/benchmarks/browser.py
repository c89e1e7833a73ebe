"""One review at a time in a visitor's browser, beside the server's path in the same minutes.

`publishing browser`'s export is served as plain files to a headless Chromium: on one thread, and with the two
headers that allow more. All take turns on every review.
"""

import argparse
import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.benchmarks.live import load_ours, review_texts
from sentiment_core.benchmarks.measure import finished, record, spread
from sentiment_core.config import ASSETS, ConfigError

FLAGS = {
    "run": ("smollm2-135m", "whose export: assets/browser/RUN"),
    "dataset": ("", "reviews to ask about; by default our own, joined"),
    "words": ("150,300", "words of the reviews"),
    "reviews": (3, "different reviews of each size"),
    "repeats": (2, "timed passes over them"),
}
HEADERS: tuple[dict[str, str], ...] = ({}, {"opener": "same-origin", "embedder": "require-corp"})
"""Cross-Origin ones: without them the page has one thread."""
THREADS = r"/on ([\w ]+);/.exec(document.querySelector('.local').innerText)[1]"
ASK = """async (text) => {
  figs.here({ask: text});
  const whole = () => figs.at.local?.text === text && figs.at.local.dial;
  while (!whole()) await new Promise((done) => setTimeout(done, 20));
  return figs.at.local.fine.seconds;
}"""


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the fine-tuned model's answer, and how long a visitor waits for the first one."""
    from playwright.sync_api import sync_playwright

    folder, base = ASSETS / "browser" / arguments.run, finished(arguments.run)[1]
    if not (folder / "model.json").is_file():
        command = f"python -m sentiment_core.publishing browser --run {arguments.run}"
        raise ConfigError(f"{folder} holds no export; make it: {command}")
    about, words = json.loads((folder / "model.json").read_text()), arguments.words.split(",")
    texts = {n: review_texts(arguments.dataset, int(n), arguments.reviews) for n in words}
    server = {f"server, {one}": load_ours(one, arguments.run, "") for one in ("int8", "fp32")}
    seconds, told = defaultdict[tuple[str, str], list[float]](list), defaultdict[tuple[str, str], Any](dict)
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser, pages = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"]), {}
        version = f"Chromium {browser.version}"
        for headers in HEADERS:
            with served(folder, headers) as address:
                page = browser.new_context().new_page()
                page.set_default_timeout(600_000)
                cold, warm = (first_answer(page, address, texts[words[0]][0]) for _ in range(2))
                pages[name := f"browser, {page.evaluate(THREADS)}"] = page
                size = f"{about['bytes'] / 1e6:.0f} MB fetched once"
                note = f"{size}; with all in the cache the first one took {warm:.1f} s"
                told[name, words[0]] = {"first_step_seconds": cold, "note": note}
        for n, text in [(count, one) for count in words for one in texts[count]] * arguments.repeats:
            for system, page in pages.items():
                seconds[system, n].append(page.evaluate(ASK, text))
            for system, answer in server.items():
                began = time.perf_counter()
                list(answer(text))
                seconds[system, n].append(time.perf_counter() - began)
        browser.close()
    latencies = {which: spread(taken, higher_is_better=False) for which, taken in seconds.items()}
    rows = [
        BenchmarkRow(system=f"{system}, {n} words", seconds_per_review=latency, **told[system, n])
        for (system, n), latency in latencies.items()
    ]
    return record(
        arguments, rows, base.name, run=arguments.run, browser=version, fetched_bytes=about["bytes"],
        agreement=about["agreement"], words=words, reviews=arguments.reviews, repeats=arguments.repeats,
    )  # fmt: skip


def first_answer(page: Any, address: str, text: str) -> float:
    """Seconds from the click that fetches the model to the fine-tuned answer."""
    page.goto(address)
    began = time.perf_counter()
    page.get_by_role("button", name="Answer in my browser").click()
    page.locator("#review textarea").fill(text)
    page.wait_for_function("(text) => figs.at.local?.text === text && figs.at.local.fine", arg=text)
    return time.perf_counter() - began


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """The folder as plain files on a free port, each with these Cross-Origin headers."""

    class Files(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(f"Cross-Origin-{name}-Policy", value)
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
