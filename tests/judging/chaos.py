"""A judge's endpoint on loopback that fails in every way that endpoints do, by a seed: which calls fail does not depend on when.

The verdict on a response is a function of the question's text, so a test knows what every row must hold. `delivered` counts,
by question, the valid verdicts that were sent whole: what was paid for and received.
"""

import asyncio
import hashlib
import json
import random
import ssl
import threading
import time
from collections import Counter
from typing import Any

from aiohttp import web

GRADES = (0, 0.5, 1)
KEY = "chaos-key-5d1f0c"
BAD_GRADES: tuple[Any, ...] = (0.7, "yes", float("nan"), True, None, 2)
FAULTS = (
    "latency",
    "429 with Retry-After",
    "429 without",
    "500",
    "502",
    "disconnect in mid-body",
    "slow drip",
    "garbage JSON",
    "wrong grade",
    "missing grade",
    "empty content",
    "content filter",
    "refusal to judge",
    "duplicate delivery",
    "over-long reply",
)
Verdict = dict[str, Any]


def verdict_on(question: str) -> Verdict:
    """The right verdict on a question."""
    number = hashlib.sha256(question.encode()).digest()[0]
    return {
        "reason": f"verdict {number}",
        "declined": bool(number & 1),
        "compliance": GRADES[number % 3],
        "coherence": GRADES[number // 3 % 3],
    }


class Chaos:
    """The server, in a thread of its own, as a context manager. `share` of the attempts fail; faults are drawn by question."""

    route = "/v1/chat/completions"
    tls: ssl.SSLContext | None = None

    def __init__(
        self,
        *,
        share: float = 0.0,
        latency_s: float = 0.0,
        faults: tuple[str, ...] = FAULTS,
        seed: int = 0,
        retry_after: str = "0.2",
    ) -> None:
        self.share, self.latency_s, self.faults, self.seed, self.retry_after = share, latency_s, faults, seed, retry_after
        self.always: dict[str, str] = {}  # questions that fail every time, and how
        self.times: list[float] = []
        self.attempts: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()
        self.faults_of: dict[str, list[str]] = {}
        self.headers: list[dict[str, str]] = []
        self.questions: list[list[dict[str, str]]] = []
        self.under_way = self.most_under_way = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> "Chaos":
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=[started], daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls).start())
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        self._loop.run_forever()

    def application(self) -> web.Application:
        """The routes that it answers."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post(self.route, self.answer)
        return app

    def fault_of(self, question: str, attempt: int) -> str | None:
        """What goes wrong with an attempt; None for most."""
        if question in self.always:
            return self.always[question]
        draw = random.Random(f"{self.seed}/{attempt}/{question}")
        return draw.choice(self.faults) if draw.random() < self.share else None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = body["messages"][-1]["content"]
        self.headers.append(dict(request.headers))
        self.questions.append(body["messages"])
        self.attempts[question] += 1
        self.times.append(time.monotonic())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.latency_s)
            fault = self.fault_of(question, self.attempts[question])
            if fault is not None:
                self.hit[fault] += 1
                self.faults_of.setdefault(question, []).append(fault)
            return await self.reply(request, body, question, fault)
        finally:
            self.under_way -= 1

    async def reply(self, request: web.Request, body: Any, question: str, fault: str | None) -> web.StreamResponse:
        if fault is not None and fault[0].isdigit():
            headers = {"Retry-After": self.retry_after} if fault == "429 with Retry-After" else {}
            error = {"error": {"message": f"try later, {request.headers.get('Authorization')}", "type": "server"}}
            return web.json_response(error, status=int(fault[:3]), headers=headers)
        content, finish, refusal = self.content(body, question, fault)
        message = {"role": "assistant", "content": content, "refusal": refusal}
        text = json.dumps(
            {
                "id": "chaos",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
            }
        )
        if fault in ("disconnect in mid-body", "slow drip"):
            return await self.broken(request, text, fault)
        if fault == "garbage JSON":
            return web.Response(text=text[: len(text) // 2], content_type="application/json")
        if fault == "duplicate delivery":
            return web.Response(text=text + text, content_type="application/json")
        if fault == "latency":
            await asyncio.sleep(0.5)
        if fault in (None, "latency", "surrogate"):
            self.delivered[question] += 1
        return web.Response(text=text, content_type="application/json")

    def content(self, body: Any, question: str, fault: str | None) -> tuple[str, str, str | None]:
        """What the judge says, how it ended, and its refusal."""
        verdict = verdict_on(question)
        if fault == "wrong grade":
            verdict["compliance"] = BAD_GRADES[self.attempts[question] % len(BAD_GRADES)]
        if fault == "missing grade":
            del verdict["coherence"]
        if fault == "empty content":
            return "", "stop", None
        if fault == "content filter":
            return "", "content_filter", None
        if fault == "surrogate":
            return json.dumps(verdict | {"reason": "cut: \ud83d"}), "stop", None
        if fault == "refusal to judge":
            return "", "stop", "I will not judge this."
        if fault == "over-long reply":
            return json.dumps(verdict)[:-1] + " " * 5000, "length", None
        return json.dumps(verdict), "stop", None

    async def broken(self, request: web.Request, text: str, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        await response.prepare(request)
        if fault == "slow drip":
            for character in text:
                await response.write(character.encode())
                await asyncio.sleep(0.2)
            return response
        await response.write(text[: len(text) // 2].encode())
        assert request.transport is not None
        request.transport.close()
        return response
