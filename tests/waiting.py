"""For tests that do not await."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, in a thread of its own: after a browser test a loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def all_of(events: AsyncIterator[Any]) -> list[Any]:
    """All that comes."""

    async def collected() -> list[Any]:
        return [event async for event in events]

    return run(collected())
