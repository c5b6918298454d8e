"""Crews of workers: one in a thread of this process, or Ray actors (judging.ray_crew). Both have the same three methods.

The fan-out's thread alone calls a crew. A crew's own threads and actors never wait for it.
"""

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
    """Workers that take calls and give back their outcomes."""

    def assign(self, calls: Sequence[Call]) -> None:
        """Take calls on; does not wait for their outcomes."""

    def collect(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of calls that have ended; waits up to `timeout_s` seconds for one and may be empty."""

    def close(self) -> None:
        """Cancel the calls under way."""


Starter = Callable[[bool], Crew]  # told whether the endpoint has answered such calls before


class LocalCrew:
    """One worker in a thread of this process: for few calls, or where nothing else keeps the process busy.

    proven: the endpoint has answered such calls before.
    """

    def __init__(self, endpoint: Endpoint, hooks: Hooks, key: SecretStr | None, *, proven: bool = False) -> None:
        # The worker's event loop has a thread of its own, since the fan-out's thread blocks on the disk and on its inbox.
        # Nothing but `_do` and `collect` reaches into that loop, and both by run_coroutine_threadsafe: no lock is needed.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge calls", daemon=True)
        self._thread.start()
        quota = LocalQuota(endpoint) if endpoint.is_limited else None
        options: dict[str, Any] = {"ceiling": endpoint.max_concurrency, "quota": quota, "proven": proven}
        self._worker: Worker = self._do(_make(lambda: Worker(endpoint, hooks, key, **options)))
        # The one `collect` in progress. A wait that times out leaves it running, so no outcome is lost between two waits.
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
        """Run a coroutine in the loop and wait for it. Only for work that does not wait for the endpoint."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Relay:
    """A first crew that makes calls at once, and a second that takes over once it has started.

    starters: what builds each crew; told whether the endpoint has answered such calls before.
    Calls of the first crew stay with it.
    """

    def __init__(self, starters: Sequence[Starter]) -> None:
        self._starters = list(starters)
        self._crews: list[Crew] = []
        self._next: Future[Crew] | None = None
        # Ray takes seconds to start; in a thread beside, the first crew's calls and the fan-out's steps go on meanwhile.
        # The thread only builds the crew. `take_over` hands it to the fan-out's thread, which alone changes `_crews`.
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="judge crew")

    @property
    def is_starting(self) -> bool:
        """True while the second crew is starting."""
        return self._next is not None

    def start_next(self) -> None:
        """Start the second crew in the background, where there is one; returns at once."""
        if self._crews and self._starters and self._next is None:
            self._next = self._starting.submit(self._starters.pop(0), True)

    def take_over(self) -> bool:
        """Switch to the second crew if it has just started; True where it has.

        Raises what kept it from starting.
        """
        if self._next is None or not self._next.done():
            return False
        self._crews.append(self._next.result())
        self._next = None
        return True

    def dispatch(self, calls: Sequence[Call], *, proven: bool) -> None:
        """Assign calls to the newest crew; the first call of this starts the first crew.

        proven: the endpoint has answered such calls before.
        """
        if not self._crews:
            self._crews.append(self._starters.pop(0)(proven))
        self._crews[-1].assign(calls)

    def collect(self, timeout_s: float) -> list[Outcome]:
        return [outcome for crew in self._crews for outcome in crew.collect(timeout_s / len(self._crews))]

    def close(self) -> None:
        """Close every crew; waits for one that is starting, which could not be closed otherwise."""
        self._starting.shutdown(cancel_futures=True)
        if self._next is not None and self._next.done() and not self._next.cancelled() and self._next.exception() is None:
            self._crews.append(self._next.result())
        for crew in self._crews:
            crew.close()


class LocalQuota:
    """The account's rate limits, for one worker in this process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._quota = Quota(endpoint.requests_per_minute, endpoint.tokens_per_minute)

    async def reserve(self, tokens: int) -> float:
        return self._quota.reserve(tokens)

    async def settle(self, tokens: int) -> None:
        self._quota.settle(tokens)


async def _make(build: Callable[[], Worker]) -> Worker:
    """Build a worker inside the loop that will run it, to which its client and its lock belong."""
    return build()
