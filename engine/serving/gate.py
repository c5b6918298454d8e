"""Many responses at a time, or one swap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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
    async def swap(self, seconds: float) -> AsyncIterator[None]:
        """While nothing else is: waits for other swaps, then `seconds` at most for every response under way (TimeoutError)."""
        async with self._swaps:
            self._open.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
                yield
            finally:
                self._open.set()
