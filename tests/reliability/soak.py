"""Visitors by the dozen, as browsers send them, against a served page: answers a second, waits, refusals.

Four of five ask about texts of 150 words, no text twice, and read the traces; the fifth looks at the tabs.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from collections import Counter, defaultdict
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
from sentiment_core.dashboard.serving import TOO_MANY
from sentiment_core.dashboard.store import Store

WORDS, ADDRESS = 150, "http://127.0.0.1:7867"
PATIENCE = 120.0  # seconds; what takes longer counts as a hang
PAUSE, ARRIVAL = 10.0, 30.0  # seconds until one who was refused, or looks, does it again; until all have come


def texts(seed: int) -> list[str]:
    """2,000 reviews of 150 words, no two alike, from sentences of our own samples."""
    sentences = [part for sample in read_sample_reviews() for part in sample.text.split(". ") if part]
    draw = random.Random(seed)
    return [" ".join(". ".join(draw.sample(sentences, 40)).split()[:WORDS]) for _ in range(2_000)]


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
        full = (await self.client.get("/queue")).json()["full"]
        told = TOO_MANY if full else await self.send(self.triggered("ask"), [None, text, None])
        return "refused" if TOO_MANY in told else "answered" if '"rows"' in told else "failed"

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


async def crowd(address: str, visitors: int, seconds: float, pid: int, each=2_000, ramp=0.0) -> dict:
    """Their figures in so many seconds after a ramp that does not count, or until each has asked so often."""
    rows, memory, given = list[tuple[str, float, float]](), list[int](), texts(visitors)
    async with httpx.AsyncClient(base_url=address, limits=httpx.Limits(), timeout=PATIENCE) as client:
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
    percentiles = log.groupby("what")["took"].quantile([0.50, 0.95, 0.99]).unstack()
    return {
        "visitors": visitors, "seconds": spent, "counts": log["what"].value_counts().to_dict(),
        "answers_per_second": int((log["what"] == "answered").sum()) / spent,
        "percentiles": percentiles.set_axis(["p50", "p95", "p99"], axis=1).to_dict("index"),
        "memory_bytes_early": memory[len(memory) // 3], "memory_bytes_late": memory[-1],
    }  # fmt: skip


def bare(seconds: float) -> float:
    """Answers a second of the model alone, with traces in a loop."""
    from sentiment_core.live.classifier import SYSTEMS, LiveClassifier

    model, given = LiveClassifier.load(Store(ASSETS).run(None)), texts(99)
    answered, began = 0, time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        for system in SYSTEMS:
            list(model.read(given[answered], system))
        answered += 1
    return answered / spent


def trials() -> dict[str, Counter[str]]:
    """What this folder's tests count in their long form: each a property named after its trial."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    long = {"SOAK_INPUTS": "10000", "SOAK_KILLS": "60", "SOAK_MUTATIONS": "150"}
    with tempfile.NamedTemporaryFile(suffix=".xml") as told:
        tests = ["-m", "pytest", "-q", "-n", "2", f"--junitxml={told.name}", str(Path(__file__).parent)]
        subprocess.run([sys.executable, *tests], env=long | os.environ, check=True)
        for one in ElementTree.parse(told.name).iter("property"):
            found[one.attrib["name"]].update(literal_eval(one.attrib["value"]))
    return found


def main(visitors: tuple[int, ...] = (50, 200), seconds: float = 180.0) -> None:
    apart = f"from tests.reliability.soak import bare; print(bare({seconds / 3}))"
    environment = os.environ | {"GRADIO_SERVER_PORT": ADDRESS.rpartition(":")[2]}
    with subprocess.Popen([sys.executable, "app.py"], cwd=ASSETS.parent, env=environment) as server:
        try:
            httpx.Client(transport=httpx.HTTPTransport(retries=9), timeout=PATIENCE).get(ADDRESS)
            given = {"seconds": seconds, "pid": server.pid, "ramp": ARRIVAL}
            uvloop.run(crowd(ADDRESS, 5, **given))  # now it is warm, and then idle
            rate = float(subprocess.check_output([sys.executable, "-c", apart]).split()[-1])
            crowds = [uvloop.run(crowd(ADDRESS, number, **given)) for number in visitors]
        finally:
            server.terminate()
    print(rate, json.dumps(crowds, indent=1), file=sys.stderr, flush=True)
    record = SoakRecord(
        created_at=utc_now(), commit=provenance.commit(), hardware=provenance.hardware("cpu"),
        versions=provenance.versions(), bare_answers_per_second=rate, crowds=crowds, trials=trials(),
    )  # fmt: skip
    write_record(ASSETS / "benchmarks" / "soak.json", record)


if __name__ == "__main__":
    main()
