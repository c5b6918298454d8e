"""Many responses at a time, or one swap."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Gone = Callable[[], Awaitable[None]]  # ends when whoever asked has hung up


class GivenUp(Exception):
    """Whoever asked for a swap has hung up before it began."""


class Gate:
    """A swap that waits goes before requests that come later. Nothing is awaited on the way out: a request that is given up
    twice over still leaves."""

    def __init__(self) -> None:
        self._swaps = asyncio.Lock()
        self._open, self._idle = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._idle.set()
        self._under_way = 0

    @asynccontextmanager
    async def response(self) -> AsyncIterator[None]:
        """While a response is made; waits for a swap."""
        while not self._open.is_set():
            await self._open.wait()
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    @asynccontextmanager
    async def swap(self, seconds: float, gone: Gone | None = None) -> AsyncIterator[None]:
        """While nothing else is: waits `seconds` at most for other swaps, and as long for every response under way.

        Raises TimeoutError, and GivenUp where `gone` ends first: whoever asked has hung up, and others are let in again.
        """
        async with asyncio.timeout(seconds):
            await self._swaps.acquire()
        try:
            self._open.clear()
            await _first(self._idle.wait(), gone, seconds)
            yield
        finally:
            self._open.set()
            self._swaps.release()


async def _first(wanted: Awaitable[Any], gone: Gone | None, seconds: float) -> None:
    tasks = [asyncio.ensure_future(one) for one in (wanted, *([gone()] if gone else []))]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if not done:
        raise TimeoutError
    if tasks[0] not in done:
        raise GivenUp
