"""Visitors by the dozen, as browsers send them, against a served page: answers a second, waits, refusals.

Four of five ask about texts of 150 words, no text twice, and read the traces; the fifth looks through the
tabs.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
WORDS, ADDRESS = 150, "http://127.0.0.1:7867"
PATIENCE, PAUSE, ARRIVAL = 120.0, 10.0, 30.0
"""Seconds: what takes longer counts as a hang; until one who was refused asks again, or looks again; within
which all have come."""


def texts(seed: int) -> list[str]:
    """2,000 reviews of 150 words, no two alike, from sentences of our own samples."""
    rows = [json.loads(line) for line in (ROOT / "assets/sample_reviews.jsonl").open(encoding="utf-8")]
    sentences = [part for row in rows for part in row["text"].split(". ") if part]
    draw = random.Random(seed)
    return [" ".join(". ".join(draw.sample(sentences, 40)).split()[:WORDS]) for _ in range(2_000)]


class Page:
    """One visitor's page: its events, found in the configuration by what triggers them."""

    def __init__(self, client: httpx.AsyncClient, config: dict[str, Any]) -> None:
        self.client, self.session = client, f"{random.getrandbits(48):x}"
        self.values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.events = config["dependencies"]

    def triggered(self, name: str) -> dict[str, Any]:
        return next(one for one in self.events if any(trigger == name for _, trigger in one["targets"]))

    async def send(self, event: dict[str, Any], data: list[Any] | None = None) -> AsyncIterator[str]:
        """What comes of it, line by line, until it is complete."""
        given = [self.values[part] for part in event["inputs"]] if data is None else data
        body = {"data": given, "fn_index": event["id"], "session_hash": self.session, "trigger_id": None}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        async with self.client.stream("GET", address) as answer:
            async for line in answer.aiter_lines():
                yield line
                if '"process_completed"' in line[:40]:
                    return

    async def ask(self, text: str) -> str:
        """What became of it: an answer with its trace, or a refusal; as the page's script asks."""
        if (await self.client.get("/queue")).json()["full"]:
            return "refused"
        told = [line async for line in self.send(self.triggered("ask"), [None, text, None])]
        ends = {"Many visitors are asking": "refused", '"rows"': "answered"}
        return next((what for sign, what in ends.items() if any(sign in line for line in told)), "failed")

    def tabs(self) -> list[Callable[[], Awaitable[str]]]:
        """What the page asks for when it is opened: itself, and then each tab."""
        opened = self.triggered("load")
        drawn = [one for one in self.events if one.get("trigger_after") == opened["id"] and one["backend_fn"]]
        return [partial(self.look, event) for event in [opened, *drawn]]

    async def look(self, event: dict[str, Any]) -> str:
        async for _ in self.send(event):
            pass
        return "tab"

    async def fetch(self) -> str:
        (await self.client.get("/")).raise_for_status()
        return "get /"


async def visit(page: Page, mine: list[str], looks: bool, log: list[tuple[str, float, float]]) -> None:
    await asyncio.sleep(random.random() * ARRIVAL)
    for text in mine:
        for step in (page.fetch, *page.tabs()) if looks else (partial(page.ask, text),):
            began, what = time.monotonic(), "hang"
            with suppress(TimeoutError):
                what = await asyncio.wait_for(step(), PATIENCE)
            log.append((what, began, time.monotonic() - began))
            await asyncio.sleep(PAUSE if what == "refused" else 0)
        await asyncio.sleep(PAUSE if looks else 0)


async def crowd(
    address: str, visitors: int, seconds: float, pid: int, each: int = 2_000, ramp: float = 0.0
) -> dict[str, Any]:
    """The figures of so many visitors in so many seconds after a ramp, in which all come and which does not
    count, or until each has asked so often."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    log, memory, given = list[tuple[str, float, float]](), list[int](), texts(visitors)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=PATIENCE) as client:
        config, began = (await client.get("/config")).json(), time.monotonic()
        shares = [given[n::visitors][:each] for n in range(visitors)]
        visits = [visit(Page(client, config), mine, n % 5 == 0, log) for n, mine in enumerate(shares)]
        running = asyncio.gather(*map(asyncio.create_task, visits), return_exceptions=True)
        began += ramp
        while (spent := time.monotonic() - began) < seconds and not running.done():
            memory.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            log += [(repr(one), began, 0) for one in await running if one]
    log = [(what, took) for what, since, took in log if since + took >= began]
    found = {what: np.array([took for name, took in log if name == what]) for what, _ in log}
    known = ("answered", "refused", "hang", "get /", "tab")
    return {
        "visitors": visitors, "seconds": spent, "counts": {what: len(took) for what, took in found.items()},
        "answers_per_second": len(found.get("answered", ())) / spent,
        "percentiles": {what: percentiles(found[what]) for what in known if what in found},
        "memory_bytes_early": memory[len(memory) // 3], "memory_bytes_late": memory[-1],
    }  # fmt: skip


def percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(seconds, share)) for share in (50, 95, 99)}
