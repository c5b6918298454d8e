"""Workers side by side: in a thread of this process, or as Ray actors (judging.ray_crew). Both have the same three methods."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from pydantic import SecretStr

from judging.calls import Call, Outcome
from judging.endpoint import Endpoint
from judging.judge import Hooks
from judging.pacing import Quota
from judging.worker import Worker


class Crew(Protocol):
    """Workers that take calls and give back what became of them."""

    def assign(self, calls: Sequence[Call]) -> None:
        """Take calls on; does not wait."""

    def collect(self, timeout_s: float) -> list[Outcome]:
        """What is finished; waits up to `timeout_s` for something to be. May be empty."""

    def close(self) -> None:
        """Drop what is under way."""


Starter = Callable[[bool], Crew]  # told whether the endpoint has answered such calls before


class LocalCrew:
    """One worker in a thread of this process: for few calls, or where nothing else keeps the process busy."""

    def __init__(self, endpoint: Endpoint, hooks: Hooks, key: SecretStr | None, *, proven: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge calls", daemon=True)
        self._thread.start()
        quota = LocalQuota(endpoint) if endpoint.is_limited else None
        options: dict[str, Any] = {"ceiling": endpoint.max_concurrency, "quota": quota, "proven": proven}
        self._worker: Worker = self._do(_make(lambda: Worker(endpoint, hooks, key, **options)))
        self._collecting: Future[list[Outcome]] | None = None

    def assign(self, calls: Sequence[Call]) -> None:
        self._do(self._worker.begin(calls))

    def collect(self, timeout_s: float) -> list[Outcome]:
        if self._collecting is None:
            self._collecting = asyncio.run_coroutine_threadsafe(self._worker.collect(), self._loop)
        try:
            outcomes = self._collecting.result(timeout_s)
        except TimeoutError:
            return []
        self._collecting = None
        return outcomes

    def close(self) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
        self._do(self._worker.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Relay:
    """A first crew that makes calls at once, and a second that takes over when it has started, in the background.

    What was given to the first crew stays with it.
    """

    def __init__(self, starters: Sequence[Starter]) -> None:
        self._starters = list(starters)
        self._crews: list[Crew] = []
        self._next: Future[Crew] | None = None
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="judge crew")

    @property
    def is_starting(self) -> bool:
        """Whether a crew is on its way."""
        return self._next is not None

    def start_next(self) -> None:
        """Begin to start the second crew, where there is one."""
        if self._crews and self._starters and self._next is None:
            self._next = self._starting.submit(self._starters.pop(0), True)

    def take_over(self) -> bool:
        """Hand over to the second crew if it has just started; tells whether it has. Raises what kept it from starting."""
        if self._next is None or not self._next.done():
            return False
        self._crews.append(self._next.result())
        self._next = None
        return True

    def dispatch(self, calls: Sequence[Call], *, proven: bool) -> None:
        """Give calls to the newest crew. `proven`: the endpoint has answered such calls before."""
        if not self._crews:
            self._crews.append(self._starters.pop(0)(proven))
        self._crews[-1].assign(calls)

    def collect(self, timeout_s: float) -> list[Outcome]:
        return [outcome for crew in self._crews for outcome in crew.collect(timeout_s / len(self._crews))]

    def close(self) -> None:
        self._starting.shutdown(cancel_futures=True)
        if self._next is not None and self._next.done() and not self._next.cancelled() and self._next.exception() is None:
            self._crews.append(self._next.result())
        for crew in self._crews:
            crew.close()


class LocalQuota:
    """The account's limits, for one worker in this process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._quota = Quota(endpoint.requests_per_minute, endpoint.tokens_per_minute)

    async def reserve(self, tokens: int) -> float:
        return self._quota.reserve(tokens)

    async def settle(self, tokens: int) -> None:
        self._quota.settle(tokens)


async def _make(build: Callable[[], Worker]) -> Worker:
    """Build in the loop that will run it."""
    return build()
