"""One review at a time in a visitor's browser, beside the server's path in the same minutes.

`publishing browser`'s export is served as plain files to a headless Chromium: on one thread, and with the two
headers that allow more. All take turns on every review.
"""

import argparse
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

from sentiment_core.artifacts.schema import BenchmarkRecord, BenchmarkRow
from sentiment_core.benchmarks.live import load_ours, review_texts, take_turns
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
ANSWERED = "(text) => figs.at.local?.text === text && figs.at.local.fine?.read === 1"


def run(arguments: argparse.Namespace) -> BenchmarkRecord:
    """Time the fine-tuned model's answer, and how long a visitor waits for the first one."""
    from playwright.sync_api import sync_playwright

    folder, base = ASSETS / "browser" / arguments.run, finished(arguments.run)[1]
    if not (folder / "model.json").is_file():
        command = f"python -m sentiment_core.publishing browser --run {arguments.run}"
        raise ConfigError(f"{folder} holds no export; make it: {command}")
    about, words = json.loads((folder / "model.json").read_text()), arguments.words.split(",")
    texts = {n: review_texts(arguments.dataset, int(n), arguments.reviews) for n in words}
    answers, told = dict[str, Any](), dict[tuple[str, str], dict[str, Any]]()
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for headers in HEADERS:
            with served(folder, headers) as address:
                page = browser.new_context().new_page()
                page.set_default_timeout(600_000)
                cold, warm = (first_answer(page, address, texts[words[0]][0]) for _ in range(2))
            answers[name := f"browser, {page.evaluate(THREADS)}"] = partial(asked, page)
            size = f"{about['bytes'] / 1e6:.0f} MB fetched once"
            note = f"{size}; with all in the cache the first one took {warm:.1f} s"
            told[name, words[0]] = {"first_step_seconds": cold, "note": note}
        answers |= {f"server, {one}": load_ours(one, arguments.run, "") for one in ("int8", "fp32")}
        taken = {n: take_turns(answers, texts[n], arguments.repeats) for n in words}
    rows = []
    for n, system in product(words, answers):
        more: dict[str, Any] = told.get((system, n), {})
        latency = spread(taken[n][system][1].ravel(), higher_is_better=False)
        rows.append(BenchmarkRow(system=f"{system}, {n} words", seconds_per_review=latency, **more))
    return record(
        arguments, rows, base.name, run=arguments.run, browser=f"Chromium {browser.version}",
        fetched_bytes=about["bytes"], agreement=about["agreement"], words=words, reviews=arguments.reviews,
        repeats=arguments.repeats,
    )  # fmt: skip


def first_answer(page: Any, address: str, text: str) -> float:
    """Seconds from the click that fetches the model to the fine-tuned answer."""
    page.goto(address)
    began = time.perf_counter()
    page.get_by_role("button", name="Answer in my browser").click()
    page.locator("#review textarea").fill(text)
    page.wait_for_function(ANSWERED, arg=text)
    return time.perf_counter() - began


def asked(page: Any, text: str) -> Iterator[str]:
    """The fine-tuned answer, and the dial, with which the page has all of it."""
    page.evaluate("(text) => { figs.set('local', null); figs.here({ask: text}); }", text)
    for there in (ANSWERED, "figs.at.local.dial"):
        page.wait_for_function(there, arg=text, polling=20)
        yield there


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """The folder as plain files on a free port, each with these Cross-Origin headers."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(f"Cross-Origin-{name}-Policy", value)
            super().end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
