"""One page on synthetic artifacts, one Chromium; axe-core is fetched once into pytest's cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_artifacts import predictions, write_assets, write_corrupt, write_ladder
from tests.fake_live import FakeClassifier

AXE = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def axe_source(request: pytest.FixtureRequest) -> str:
    """axe-core's script, through npm as it is set up here."""
    folder = Path(request.config.cache.mkdir("axe"))
    script = folder / "package" / "axe.min.js"
    if not script.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, so axe-core cannot be fetched")
        done = subprocess.run(
            ["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            pytest.skip(f"npm could not fetch {AXE}")
        with tarfile.open(folder / done.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(folder, filter="data")
    return script.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of all pages, on a disk: scripts that one has compiled stay in its cache."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )
    with sync_api.sync_playwright() as playwright:
        try:
            context = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"), executable_path=found,
                args=["--no-sandbox", "--disable-gpu"], viewport={"width": 1280, "height": 900},
            )  # fmt: skip
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        context.set_default_timeout(90_000)  # a busy machine may take its time
        yield context
        context.close()


class Site:
    """A served page: its address, and what it is made of."""

    def __init__(self, assets: Path, load: Callable[..., Any], texts: dict[str, str] | None = None) -> None:
        from sentiment_core.dashboard.app import build, launch

        self.assets = assets
        self.demo = build(assets, load, texts=texts or {})
        _, self.url, _ = launch(self.demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")

    def address(self, **query: str) -> str:
        return self.url + "?" + "&".join(f"{key}={value}" for key, value in query.items())

    def close(self) -> None:
        self.demo.close()


def slow_load(run: Any) -> FakeClassifier:
    return FakeClassifier(run, wait=0.05)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two runs, five systems, two datasets, one run in training; texts for the IMDB part only."""
    assets = write_assets(tmp_path_factory.mktemp("assets"), n=600, pairs=40)
    ids = predictions("fine-tuned", 600)["review_id"]
    texts = {i: f"Review number {n}. A <b>bold</b> film, great and dreadful." for n, i in enumerate(ids)}
    served = Site(assets, slow_load, texts)
    yield served
    served.close()


@pytest.fixture(scope="session")
def ladder_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four runs on three base models, with texts."""
    assets = write_ladder(tmp_path_factory.mktemp("ladder"), n=600)
    ids = predictions("fine-tuned", 600)["review_id"]
    served = Site(assets, slow_load, {i: f"Review number {n}. A bold film." for n, i in enumerate(ids)})
    yield served
    served.close()


@pytest.fixture(scope="session")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """No artifacts at all, and a model that cannot be loaded."""

    def fail(run: Any) -> FakeClassifier:
        raise OSError("no weights on this machine")

    served = Site(tmp_path_factory.mktemp("bare"), fail)
    yield served
    served.close()


@pytest.fixture(scope="session")
def corrupt_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Good folders beside one of each way to be unusable; no review texts."""
    assets = write_assets(tmp_path_factory.mktemp("corrupt"), n=60, pairs=10)
    write_corrupt(assets)
    served = Site(assets, slow_load)
    yield served
    served.close()


@contextmanager
def opened(context: Any) -> Iterator[Any]:
    """A fresh page that remembers what it asked for, what went wrong, and what it said of that."""
    page = context.new_page()
    page.asked, page.errors, page.said = [], [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.said.append(said.text) if said.type == "error" else None)
    yield page
    page.close()


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    with opened(context) as page:
        yield page


def settle(page: Any, seconds: float = 60.0) -> None:
    """Wait until nothing on the page is pending and the layout has stood still for a moment."""
    page.wait_for_selector("#tabs")
    end, last, still = time.monotonic() + seconds, "", 0
    while time.monotonic() < end:
        now = json.dumps(page.evaluate(
            "() => [document.body.scrollHeight, document.querySelectorAll('.generating').length,"
            " [...document.querySelectorAll('.muted')].some(one => one.offsetParent"
            " && one.textContent.includes('Reading the artifacts'))]"
        ))  # fmt: skip
        still = still + 1 if now == last and not now.endswith("true]") else 0
        if still >= 3:
            return
        last = now
        page.wait_for_timeout(100)
    raise AssertionError("the page did not come to rest")
