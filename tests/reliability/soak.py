"""Visitors by the dozen, as browsers send them, against a served page: answers a second, waits, refusals.

Four of five ask about texts of 150 words, no text twice, and read the traces; the fifth looks through the
tabs. `make soak` measures them with the real model on this processor beside the long form of this folder's
tests; the Method tab shows its report.
"""

import asyncio
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pandas as pd
import psutil
import uvloop

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.schema import SoakRecord
from sentiment_core.artifacts.store import read_sample_reviews, utc_now, write_record
from sentiment_core.config import ASSETS
from sentiment_core.dashboard.store import Store

WORDS, ADDRESS = 150, "http://127.0.0.1:7867"
PATIENCE, PAUSE, ARRIVAL = 120.0, 10.0, 30.0
"""Seconds: what takes longer counts as a hang; until one who was refused asks again, or looks again; within
which all have come."""


def texts(seed: int) -> list[str]:
    """2,000 reviews of 150 words, no two alike, from sentences of our own samples."""
    sentences = [part for sample in read_sample_reviews() for part in sample.text.split(". ") if part]
    draw = random.Random(seed)
    return [" ".join(". ".join(draw.sample(sentences, 40)).split()[:WORDS]) for _ in range(2_000)]


# ---- the load


class Page:
    """One visitor's page: its events, found in the configuration by what triggers them."""

    def __init__(self, client: httpx.AsyncClient, config: dict[str, Any]) -> None:
        self.client, self.session = client, f"{random.getrandbits(48):x}"
        self.values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.events = config["dependencies"]
        opened = self.triggered("load")
        drawn = [one for one in self.events if one.get("trigger_after") == opened["id"] and one["backend_fn"]]
        self.looks = [self.fetch, *(partial(self.look, event) for event in (opened, *drawn))]
        """What a browser asks for when the page is opened: itself, and then each tab."""

    def triggered(self, name: str) -> dict[str, Any]:
        return next(one for one in self.events if any(trigger == name for _, trigger in one["targets"]))

    async def send(self, event: dict[str, Any], data: list[Any]) -> str:
        """All that comes of it."""
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "trigger_id": None}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        return (await self.client.get("/gradio_api/queue/data", params={"session_hash": self.session})).text

    async def ask(self, text: str) -> str:
        """What became of it: an answer with its trace, or a refusal; as the page's script asks."""
        if (await self.client.get("/queue")).json()["full"]:
            return "refused"
        told = await self.send(self.triggered("ask"), [None, text, None])
        if "Many visitors are asking" in told:
            return "refused"
        return "answered" if '"rows"' in told else "failed"

    async def look(self, event: dict[str, Any]) -> str:
        await self.send(event, [self.values[part] for part in event["inputs"]])
        return "tab"

    async def fetch(self) -> str:
        (await self.client.get("/")).raise_for_status()
        return "get /"


async def visit(page: Page, mine: list[str], looks: bool, log: list[tuple[str, float, float]]) -> None:
    await asyncio.sleep(random.random() * ARRIVAL)
    for text in mine:
        for step in page.looks if looks else [partial(page.ask, text)]:
            began = time.monotonic()
            try:
                what = await asyncio.wait_for(step(), PATIENCE)
            except (TimeoutError, httpx.HTTPError) as error:
                what = "hang" if isinstance(error, TimeoutError) else repr(error)
            log.append((what, began, time.monotonic() - began))
            await asyncio.sleep(PAUSE if what not in ("answered", "tab", "get /") else 0)
        await asyncio.sleep(PAUSE if looks else 0)


async def crowd(
    address: str, visitors: int, seconds: float, pid: int, each: int = 2_000, ramp: float = 0.0
) -> dict[str, Any]:
    """The figures of so many visitors in so many seconds after a ramp, in which all come and which does not
    count, or until each has asked so often."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    rows, memory, given = list[tuple[str, float, float]](), list[int](), texts(visitors)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=PATIENCE) as client:
        config, began = (await client.get("/config")).json(), time.monotonic() + ramp
        shares = [given[n::visitors][:each] for n in range(visitors)]
        visits = [visit(Page(client, config), mine, n % 5 == 0, rows) for n, mine in enumerate(shares)]
        running = asyncio.gather(*visits)
        while (spent := time.monotonic() - began) < seconds and not running.done():
            memory.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    log = pd.DataFrame(rows, columns=["what", "since", "took"]).query("since + took >= @began")
    return {
        "visitors": visitors, "seconds": spent, "counts": log["what"].value_counts().to_dict(),
        "answers_per_second": int((log["what"] == "answered").sum()) / spent,
        "percentiles": {
            what: {f"p{share}": took.quantile(share / 100) for share in (50, 95, 99)}
            for what, took in log.groupby("what")["took"]
        },
        "memory_bytes_early": memory[len(memory) // 3], "memory_bytes_late": memory[-1],
    }  # fmt: skip


# ---- the report

LONG = {"SOAK_INPUTS": "10000", "SOAK_KILLS": "60", "SOAK_MUTATIONS": "150"}


def bare(seconds: float) -> float:
    """Answers a second of the model alone, with traces in a loop."""
    from sentiment_core.live.classifier import SYSTEMS, LiveClassifier

    model, began = LiveClassifier.load(Store(ASSETS).run(None)), time.monotonic()
    for n, text in enumerate(texts(99), 1):
        for system in SYSTEMS:
            list(model.read(text, system))
        rate = n / (spent := time.monotonic() - began)
        if spent > seconds:
            break
    return rate


async def ready() -> None:
    """Returns when the page answers a review."""
    patient = httpx.AsyncHTTPTransport(retries=9)  # a minute or two
    async with (
        asyncio.timeout(300),
        httpx.AsyncClient(base_url=ADDRESS, timeout=PATIENCE, transport=patient) as client,
    ):
        page = Page(client, (await client.get("/config")).json())
        while await page.ask("A great film.") != "answered":
            await asyncio.sleep(1)


def crowds(visitors: Sequence[int], seconds: float) -> dict[str, Any]:
    """The bare model's rate while the page is there but idle, and then the figures of each crowd, against
    `app.py` as it is started by hand."""
    environment = os.environ | {"GRADIO_SERVER_PORT": ADDRESS.rpartition(":")[2]}
    with subprocess.Popen([sys.executable, "app.py"], cwd=ASSETS.parent, env=environment) as server:
        try:
            uvloop.run(ready())
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
                rate = apart.submit(bare, seconds / 3).result()
            given = {"seconds": seconds, "pid": server.pid, "ramp": ARRIVAL}
            seen = [uvloop.run(crowd(ADDRESS, number, **given)) for number in visitors]
        finally:
            server.terminate()
    return {"bare_answers_per_second": rate, "crowds": seen}


def trials() -> dict[str, Counter[str]]:
    """What this folder's tests count in their long form: each a property named after its trial."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.NamedTemporaryFile(suffix=".xml") as told:
        tests = ["-m", "pytest", "-q", "-n", "2", f"--junitxml={told.name}", str(Path(__file__).parent)]
        subprocess.run([sys.executable, *tests], env=LONG | os.environ, check=True)
        for one in ElementTree.parse(told.name).iter("property"):
            found[one.attrib["name"]].update(json.loads(one.attrib["value"]))
    return found


def main() -> None:
    measured = crowds(visitors=(50, 200), seconds=180)
    print(json.dumps(measured, indent=1), file=sys.stderr, flush=True)
    record = SoakRecord(
        created_at=utc_now(), commit=provenance.commit(), hardware=provenance.hardware("cpu"),
        versions=provenance.versions(), trials=trials(), **measured,
    )  # fmt: skip
    write_record(ASSETS / "benchmarks" / "soak.json", record)


if __name__ == "__main__":
    main()
