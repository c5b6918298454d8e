"""A chat completions endpoint of a fixed latency and number of slots, to measure clients against.

Run as python -m engine.benchmarks.mock_endpoint.
Calls beyond the slots wait, as in a server's queue. Its capacity is slots / latency. It answers every call with the same valid
verdict, so it judges nothing.
"""

import asyncio
import sys
from typing import Any

VERDICT = '{"reason": "It answers.", "declined": false, "compliance": 1, "coherence": 1}'
USAGE = {"prompt_tokens": 800, "completion_tokens": 30, "total_tokens": 830}


class MockEndpoint:
    """Answers on loopback; `served` counts finished calls."""

    def __init__(self, slots: int, latency_s: float) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.latency_s = latency_s
        self.served = 0

    async def answer(self, request: Any) -> Any:
        from aiohttp import web

        await request.read()
        async with self.slots:
            await asyncio.sleep(self.latency_s)
        self.served += 1
        message = {"role": "assistant", "content": VERDICT}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": f"mock-{self.served}", "object": "chat.completion", "choices": [choice], "usage": USAGE})

    async def serve(self) -> None:
        """Serve until killed; the port is the first line on stdout."""
        from aiohttp import web

        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(MockEndpoint(int(sys.argv[1]), float(sys.argv[2])).serve())
