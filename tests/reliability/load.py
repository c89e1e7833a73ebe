"""Visitors by the dozen, as browsers send them, against a served page: answers a second, waits, refusals.

    python -m tests.reliability.load --visitors 50 --seconds 120 --output load.json

Four of five ask about texts of 150 words, no text twice, and read the traces; the fifth looks through the
tabs. The bare model's rate, with traces in a loop, is measured first, while the page is there but idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
WORDS = 150
PATIENCE = 120.0
"""Seconds: an answer, refusal or tab that takes longer counts as a hang."""
PAUSE = 10.0
"""Seconds until somebody who was refused asks again."""


def texts(seed: int) -> list[str]:
    """Reviews of 150 words, no two alike, from sentences of our own samples."""
    rows = [json.loads(line) for line in (ROOT / "assets/sample_reviews.jsonl").open(encoding="utf-8")]
    sentences = [part for row in rows for part in row["text"].split(". ") if part]
    draw = random.Random(seed)
    return [" ".join(". ".join(draw.sample(sentences, 40)).split()[:WORDS]) for _ in range(2_000)]


def bare_rate(seconds: float) -> float:
    """Answers of both models with traces a second, in a loop, in a process of its own."""
    code = f"""if True:
        import time
        from sentiment_core.config import ASSETS
        from sentiment_core.dashboard.store import Store
        from sentiment_core.live.classifier import SYSTEMS, LiveClassifier
        from tests.reliability.load import texts
        model = LiveClassifier.load(Store(ASSETS).run(None))
        began = time.monotonic()
        for n, text in enumerate(texts(99), 1):
            for system in SYSTEMS:
                list(model.read(text, system))
            if (spent := time.monotonic() - began) > {seconds}:
                break
        print(n / spent)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


class Page:
    """One visitor's page: its events, found in the configuration by what triggers them."""

    def __init__(self, client: httpx.AsyncClient, config: dict[str, Any]) -> None:
        self.client, self.session = client, f"{random.getrandbits(48):x}"
        self.values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.events = config["dependencies"]

    def triggered(self, name: str) -> dict[str, Any]:
        return next(one for one in self.events if any(trigger == name for _, trigger in one["targets"]))

    async def send(self, event: dict[str, Any], data: list[Any] | None = None) -> AsyncIterator[Any]:
        """What comes of it, message by message, until it is complete."""
        given = [self.values[part] for part in event["inputs"]] if data is None else data
        body = {"data": given, "fn_index": event["id"], "session_hash": self.session, "trigger_id": None}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        stream = self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session})
        async with stream as answer:
            async for line in answer.aiter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                yield message
                if message.get("msg") == "process_completed":
                    return

    async def ask(self, text: str) -> str:
        """ "answered" with its trace, or "refused"."""
        told = ""
        async for message in self.send(self.triggered("ask"), [None, text, None]):
            told += json.dumps(message.get("output", ""))
        return (
            "refused" if "Many visitors are asking" in told else "answered" if '"rows"' in told else "failed"
        )

    async def look(self) -> None:
        """Open the page: what it sends then draws every tab."""
        opened = self.triggered("load")
        drawn = [one for one in self.events if one.get("trigger_after") == opened["id"]]
        for event in [opened, *(one for one in drawn if one["backend_fn"])]:
            async for _ in self.send(event):
                pass


class Log(list[tuple[str, float, float]]):
    """(what, when it ended, seconds)."""

    @contextlib.asynccontextmanager
    async def timed(self, what: str) -> AsyncIterator[list[str]]:
        began, named = time.monotonic(), [what]
        try:
            async with asyncio.timeout(PATIENCE):
                yield named
        except TimeoutError:
            named[0] = "hang"
        self.append((named[0], time.monotonic(), time.monotonic() - began))

    def of(self, what: str, since: float) -> np.ndarray:
        return np.array([seconds for name, at, seconds in self if name == what and at >= since])


async def visitor(client: httpx.AsyncClient, config: Any, mine: list[str], looks: bool, log: Log) -> None:
    await asyncio.sleep(random.random() * 5)
    for text in mine:
        page = Page(client, config)
        if looks:
            async with log.timed("get /"):
                (await client.get("/")).raise_for_status()
            async with log.timed("tabs"):
                await page.look()
            await asyncio.sleep(1)
            continue
        async with log.timed("answered") as what:
            what[0] = await page.ask(text)
        if what[0] == "refused":
            await asyncio.sleep(PAUSE)


async def crowd(address: str, visitors: int, seconds: float, pid: int) -> dict[str, Any]:
    """The figures of so many visitors in so many seconds, those of the first tenth left out."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    log, memory, given = Log(), list[int](), texts(visitors)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=PATIENCE) as client:
        config = (await client.get("/config")).json()
        share = len(given) // visitors
        tasks = [
            asyncio.create_task(visitor(client, config, given[n * share : (n + 1) * share], n % 5 == 0, log))
            for n in range(visitors)
        ]
        since = time.monotonic() + seconds / 10
        while time.monotonic() < since + seconds * 0.9:
            memory.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(1)
        until = time.monotonic()
        for task in tasks:
            task.cancel()
        failed = [
            task
            for task in await asyncio.gather(*tasks, return_exceptions=True)
            if isinstance(task, Exception)
        ]
    tenth = len(memory) // 10
    counts = {what: len(log.of(what, since)) for what in ("answered", "refused", "failed", "hang")}
    return {
        "visitors": visitors, "seconds": seconds, **counts, "errors": [repr(error) for error in failed],
        "answers_per_second": counts["answered"] / (until - since),
        "memory_bytes": {"after_a_tenth": memory[tenth], "end": memory[-1], "peak": max(memory)},
        "percentiles": {
            what: dict(zip(("p50", "p95", "p99"), np.percentile(found, (50, 95, 99)).tolist(), strict=True))
            for what in ("answered", "refused", "get /", "tabs") if len(found := log.of(what, since))
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visitors", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--output", type=Path)
    flags = parser.parse_args()
    environment = os.environ | {"GRADIO_SERVER_PORT": "7867", "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        address = "http://127.0.0.1:7867"
        asyncio.run(ready(address))
        found = {"bare_answers_per_second": bare_rate(min(60, flags.seconds))}
        found["crowds"] = [asyncio.run(crowd(address, n, flags.seconds, server.pid)) for n in flags.visitors]
    finally:
        server.terminate()
        server.wait(10)
    print(text := json.dumps(found, indent=1))
    if flags.output:
        flags.output.write_text(text + "\n", encoding="utf-8")


async def ready(address: str) -> None:
    """Returns when the page answers a review."""
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
        for _ in range(120):
            with contextlib.suppress(httpx.HTTPError):
                if (
                    await Page(client, (await client.get("/config")).json()).ask("A great film.")
                    == "answered"
                ):
                    return
            await asyncio.sleep(1)
    raise SystemExit("the page did not answer")


if __name__ == "__main__":
    main()
