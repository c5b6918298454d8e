"""Questions in a file: an OpenAI-compatible batch endpoint answers them within a day, at a lower price.

    batch = Batch(endpoint, hooks, state, say)
    batch.run(calls, cache)          # uploads once, waits, and stores the answers; run again to go on where it stopped

The batches' ids stand in a file as soon as the endpoint has given them, so a command that was stopped pays for nothing twice.
An answer is read as one that came at once; what a batch leaves unanswered is a failed call with its reason.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from judging.cache import ReplyCache
from judging.calls import Call, Outcome
from judging.completion import read_completion
from judging.costs import attempt_cost
from judging.endpoint import ROUTE, Endpoint
from judging.errors import Fault, JudgeError
from judging.judge import Hooks
from judging.network import of_connection, open_client
from judging.problems import of_status, words_of
from judging.replies import shortened, storable
from judging.request import arguments

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST_REQUESTS, MOST_BYTES = 50_000, 100 * 2**20  # of one file; OpenAI takes 200 MB
LINE_BYTES = 2**20  # of one answer
PATIENCE_S = 600.0  # for a file on its way up or down
ENDED = ("completed", "failed", "expired", "cancelled")
Found = TypeVar("Found")


@dataclass(frozen=True)
class BatchCounts:
    """What a batch came to: answers stored, calls that failed, and the statuses of batches that are not at their end."""

    done: int = 0
    failed: int = 0
    waiting: tuple[str, ...] = ()


class Batch:
    """The questions of one job at one endpoint. state: the file that holds the batches' ids while they are under way."""

    def __init__(self, endpoint: Endpoint, hooks: Hooks, state: Path, say: Callable[[str], None] = print) -> None:
        self.endpoint, self.hooks, self.state, self.say = endpoint, hooks, state, say

    def check_cost(self, calls: Sequence[Call], most: float | None) -> None:
        """Raise JudgeError where the questions can cost more than `most`: a batch cannot be stopped on the way."""
        self.endpoint.check_price(most)
        worst = sum(attempt_cost(self.endpoint, call.messages) for call in calls)
        if most is not None and worst > most:
            raise JudgeError(
                f"The batch can cost {worst:.4f} {self.endpoint.currency}, more than --max-cost {most:g}. A batch cannot be "
                "stopped on the way: raise the limit, lower endpoint.max_tokens, or judge without --batch."
            )

    def run(self, calls: Sequence[Call], cache: ReplyCache, *, wait: bool = True) -> BatchCounts:
        """Upload what is not under way yet, and store the answers of batches that have ended.

        wait: stay until all have ended, looking every `batch_poll_s` seconds.
        Raises JudgeError where the endpoint takes no batch.
        """
        return asyncio.run(self._run({call.key: call for call in calls}, cache, wait=wait))

    async def _run(self, calls: dict[bytes, Call], cache: ReplyCache, *, wait: bool) -> BatchCounts:
        client = open_client(self.endpoint, self.endpoint.key(), max_connections=4).with_options(timeout=PATIENCE_S)
        try:
            names = self._under_way() or await self._submit(client, list(calls.values()))
            return await self._gather(client, names, calls, cache, wait=wait)
        finally:
            await client.close()

    def _under_way(self) -> list[str]:
        try:
            kept = json.loads(self.state.read_text("utf-8"))["batches"] if self.state.is_file() else []
            return [str(name) for name in kept]
        except (ValueError, KeyError, TypeError) as error:
            raise JudgeError(
                f"{self.state} is damaged ({error}). Remove it; a batch under way is then asked for again."
            ) from error

    def _remember(self, names: Sequence[str]) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        beside = self.state.with_suffix(".new")
        beside.write_text(json.dumps({"batches": list(names), "model": self.endpoint.model}), "utf-8")
        beside.replace(self.state)

    async def _submit(self, client: "AsyncOpenAI", calls: Sequence[Call]) -> list[str]:
        """Upload the questions, and return the ids of their batches, which are on disk as soon as each is known."""
        names: list[str] = []
        for part in parts(self.endpoint, self.hooks, calls):
            uploaded = await _reached(client.files.create(file=("judge.jsonl", part), purpose="batch"))
            options: dict[str, Any] = {"endpoint": f"/v1{ROUTE}", "completion_window": "24h"}
            batch = await _reached(client.batches.create(input_file_id=uploaded.id, **options))
            names.append(batch.id)
            self._remember(names)
        self.say(f"batch: {len(calls)} questions uploaded to {self.endpoint.base_url}; they are answered within a day")
        return names

    async def _gather(
        self, client: "AsyncOpenAI", names: Sequence[str], calls: dict[bytes, Call], cache: ReplyCache, *, wait: bool
    ) -> BatchCounts:
        found, left, said = BatchCounts(), list(names), 0.0
        while True:
            looked = [(name, await _reached(client.batches.retrieve(name))) for name in left]
            for name, batch in looked:
                if batch.status in ENDED:
                    found = await self._store(client, batch, calls, cache, found)
                    left.remove(name)
                    self._remember(left)
            if not left:
                self.state.unlink(missing_ok=True)
                return found
            waiting = tuple(batch.status for name, batch in looked if name in left)
            if not wait:
                return replace(found, waiting=waiting)
            if time.monotonic() - said > PATIENCE_S or not said:
                said = time.monotonic()
                self.say(
                    f"batch: {', '.join(waiting)}; looking every {self.endpoint.batch_poll_s:g} s (Ctrl-C is safe: run again)"
                )
            await asyncio.sleep(self.endpoint.batch_poll_s)

    async def _store(
        self, client: "AsyncOpenAI", batch: Any, calls: dict[bytes, Call], cache: ReplyCache, found: BatchCounts
    ) -> BatchCounts:
        """Store what an ended batch answered; its questions without an answer stay unasked."""
        outcomes: list[Outcome] = []
        for file in (batch.output_file_id, batch.error_file_id):
            if file is not None:
                outcomes += await _reached(self._outcomes(client, file, calls))
        if batch.status == "failed" and not outcomes:
            said = words_of([error.message for error in (batch.errors.data or [])] if batch.errors else []) or "no reason"
            self.state.unlink(missing_ok=True)
            raise JudgeError(f"The endpoint refused the batch: {said}. Judge without --batch, or mend what it names.")
        cache.put(outcomes)
        done = sum(one.ended == "done" for one in outcomes)
        return BatchCounts(found.done + done, found.failed + len(outcomes) - done)

    async def _outcomes(self, client: "AsyncOpenAI", file: str, calls: dict[bytes, Call]) -> list[Outcome]:
        async with client.files.with_streaming_response.content(file) as raw:
            return [one async for line in lines(raw.iter_bytes()) if (one := self._outcome(line, calls))]

    def _outcome(self, line: bytes, calls: dict[bytes, Call]) -> Outcome | None:
        """A line's outcome; None for a line of a question that was not asked here."""
        try:
            row = json.loads(line)
            call = calls[bytes.fromhex(row["custom_id"])]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        outcome = Outcome(call.key, attempts=1)
        try:
            reply = self._reply(row)
            outcome.book(reply, self.endpoint.price, attempt_cost(self.endpoint, call.messages))
            self.hooks.parse(reply.content)
            outcome.reply, outcome.ended = reply.content, "done"
        except Fault as fault:
            outcome.error = shortened(f"{fault.kind}: {fault}")
        outcome.latency_ms = None
        return outcome

    def _reply(self, row: dict[str, Any]) -> Any:
        response = row.get("response")
        if not isinstance(response, dict):
            raise Fault("refused", words_of(row.get("error")) or "the batch gives no response")
        body = json.dumps(response.get("body"))
        status = response.get("status_code", 200)
        if isinstance(status, int) and status >= 400:
            raise of_status(status, body, {})
        return read_completion(body, 0.0)


def parts(endpoint: Endpoint, hooks: Hooks, calls: Sequence[Call]) -> Iterator[bytes]:
    """The files to upload, each of as many lines as one may hold. A line's custom_id is the call's address."""
    held: list[bytes] = []
    size = 0
    for call in calls:
        request = arguments(endpoint, hooks, call.messages)
        body = {**request, **request.pop("extra_body", {})}
        body.pop("extra_body", None)
        line = json.dumps({"custom_id": call.key.hex(), "method": "POST", "url": f"/v1{ROUTE}", "body": body}).encode() + b"\n"
        if held and (len(held) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a body. One of more than LINE_BYTES is left out, and not held."""
    held, skipping = bytearray(), False
    async for chunk in chunks:
        *ended, rest = (bytes(held) + chunk).split(b"\n")
        for line in ended:
            if not skipping and line.strip():
                yield line
            skipping = False
        held = bytearray(rest)
        if len(held) > LINE_BYTES:
            held, skipping = bytearray(), True
    if held.strip() and not skipping:
        yield bytes(held)


async def _reached(call: Awaitable[Found]) -> Found:
    """What the endpoint answered. Raises JudgeError, with its words, where it takes no batch or is not there."""
    import aiohttp
    import httpx2
    import openai

    try:
        return await call
    except (Fault, TimeoutError, openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError) as error:
        fault = error if isinstance(error, Fault) else of_connection(error, PATIENCE_S)
        said = storable(str(fault))
        raise JudgeError(f"The endpoint took no batch ({said}). Judge without --batch, or see what it offers.") from error
