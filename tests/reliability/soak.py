"""The long form of this folder's tests, as a report that the Method tab shows: `make soak`.

Crowds of visitors against the real model on this processor, hostile inputs, kills, damaged artifacts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvloop

from sentiment_core.artifacts import provenance
from sentiment_core.artifacts.schema import SoakRecord
from sentiment_core.artifacts.store import utc_now, write_record
from sentiment_core.config import ASSETS
from tests.reliability import load

BARE = """
import sys, time
from sentiment_core.config import ASSETS
from sentiment_core.dashboard.store import Store
from sentiment_core.live.classifier import SYSTEMS, LiveClassifier
from tests.reliability.load import texts
model, began = LiveClassifier.load(Store(ASSETS).run(None)), time.monotonic()
for n, text in enumerate(texts(99), 1):
    for system in SYSTEMS:
        list(model.read(text, system))
    if (spent := time.monotonic() - began) > float(sys.argv[1]):
        break
print(n / spent)
"""

LONG = {"SOAK_INPUTS": "10000", "SOAK_KILLS": "60", "SOAK_MUTATIONS": "150"}


async def ready() -> None:
    """Returns when the page answers a review."""
    async with httpx.AsyncClient(base_url=load.ADDRESS, timeout=load.PATIENCE) as client:
        for _ in range(120):
            with suppress(httpx.HTTPError):
                page = load.Page(client, (await client.get("/config")).json())
                if await page.ask("A great film.") == "answered":
                    return
            await asyncio.sleep(1)
    raise SystemExit("the page did not answer")


def measured(visitors: list[int], seconds: float) -> dict[str, Any]:
    """The bare model's rate, with traces in a loop while the page is there but idle, and then the figures of
    each crowd, against `app.py` as it is started by hand."""
    environment = os.environ | {"GRADIO_SERVER_PORT": load.ADDRESS.rpartition(":")[2]}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=load.ROOT, env=environment)
    try:
        uvloop.run(ready())
        call = [sys.executable, "-c", BARE, str(seconds / 3)]
        bare = subprocess.run(call, cwd=load.ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        measure = partial(load.crowd, load.ADDRESS, seconds=seconds, pid=server.pid, ramp=load.ARRIVAL)
        crowds = [uvloop.run(measure(visitors=number)) for number in visitors]
    finally:
        server.terminate()
        server.wait(10)
    return {"bare_answers_per_second": float(bare.split()[-1]), "crowds": crowds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seconds", type=float, default=180, help="of each crowd")
    parser.add_argument("--output", type=Path, default=ASSETS / "benchmarks" / "soak.json")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        crowds = measured(flags.visitors, flags.seconds)
        print(json.dumps(crowds, indent=1), file=sys.stderr, flush=True)
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "2", str(Path(__file__).parent)]
        subprocess.run(tests, env=LONG | os.environ | {"SOAK_REPORT_DIR": folder}, check=True)
        trials = {
            path.stem: json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("*.json"))
        }
    record = SoakRecord(
        created_at=utc_now(), commit=provenance.commit(), hardware=provenance.hardware("cpu"),
        versions=provenance.versions(), trials=trials, **crowds,
    )  # fmt: skip
    write_record(flags.output, record)


if __name__ == "__main__":
    main()
