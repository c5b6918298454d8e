"""The pace of calls: a concurrency that finds its own number, the account's rate limits, and a breaker for a dead endpoint.

Plain classes without a network. Times are monotonic seconds, given by `clock`.
No class here has a lock: an object belongs to one event loop, or to one Ray actor that runs one method at a time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

START = 4.0
PAUSE_S = 0.25  # without growth after a failure of the server
Clock = Callable[[], float]


class Slots:
    """Slots for calls under way at once, as many as the endpoint turns out to take.

    The rule is TCP's (Jacobson 1988). In slow start each success adds one slot, which doubles them a round trip. "Busy" halves
    them, and from then on each success adds 1/slots. Calls that were sent before the last halving do not halve again.
    """

    def __init__(self, ceiling: int, *, clock: Clock = time.monotonic) -> None:
        self.ceiling = float(ceiling)
        self.limit = min(START, self.ceiling)
        self.active = 0
        self._clock = clock
        self._slow_start = True
        self._halved_at = self._grows_at = self.resumes_at = -1.0
        # Calls that wait for a slot, next one first. A queue of our own and no asyncio.Semaphore: the limit changes while
        # calls wait, and retries go to the front. A call waits here for another's `release`, a success, or Retry-After.
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, ahead: bool = False) -> float:
        """Wait for a slot; returns the time at which it was given.

        ahead: before the calls that wait, for a retry.
        """
        if self._waiting or self.active >= int(self.limit) or self._clock() < self.resumes_at:
            future = asyncio.get_running_loop().create_future()
            if ahead:
                self._waiting.appendleft(future)
            else:
                self._waiting.append(future)
            await future  # `_wake` has counted it already: between two awaits nobody else could take the slot
        else:
            self.active += 1
        return self._clock()

    def release(self) -> None:
        """Give a slot back."""
        self.active -= 1
        self._wake()

    def succeeded(self) -> None:
        """Grow: an answer came, so more calls may be under way."""
        if self._clock() >= self._grows_at:
            self.limit = min(self.limit + (1.0 if self._slow_start else 1 / self.limit), self.ceiling)
            self._wake()

    def busy(self, sent_at: float, retry_after: float | None) -> None:
        """Halve the slots, and send nothing for `retry_after` seconds: the endpoint asked for a slower pace.

        sent_at: when the call was sent, as `acquire` gave it.
        """
        now = self._clock()
        self._slow_start = False
        if sent_at > self._halved_at:
            self.limit = max(self.limit / 2, 1.0)
            self._halved_at = now
        if retry_after is not None:
            self.resumes_at = max(self.resumes_at, now + retry_after)
            asyncio.get_running_loop().call_later(retry_after + 0.001, self._wake)

    def troubled(self) -> None:
        """Stop growing for a while: the endpoint failed."""
        self._grows_at = self._clock() + PAUSE_S

    def _wake(self) -> None:
        while self._waiting and self.active < int(self.limit) and self._clock() >= self.resumes_at:
            future = self._waiting.popleft()
            if not future.cancelled():
                self.active += 1
                future.set_result(None)


class Quota:
    """The account's rate limits, requests and tokens a minute, for all workers together.

    Requests are evenly spaced (the generic cell rate algorithm). None: no limit.
    """

    def __init__(self, requests: int | None, tokens: int | None, *, clock: Clock = time.monotonic) -> None:
        self._spacing = 60 / requests if requests else 0.0
        self._per_token = 60 / tokens if tokens else 0.0
        self._clock = clock
        self._next_request = self._next_token = 0.0

    def reserve(self, tokens: int) -> float:
        """Seconds to wait before sending a request of about so many tokens."""
        now = self._clock()
        at = max(self._next_request, self._next_token, now)
        self._next_request = at + self._spacing
        self._next_token = max(self._next_token, now) + tokens * self._per_token
        return at - now

    def settle(self, tokens: int) -> None:
        """Correct an estimate: so many tokens more (or, negative, fewer) were used."""
        self._next_token += tokens * self._per_token


class Breaker:
    """Tells when the endpoint is down: many failures in a row, over some time, and nothing that came through.

    proven: something has come through, now or before.
    """

    def __init__(self, failures: int, seconds: float, *, proven: bool = False, clock: Clock = time.monotonic) -> None:
        self._needed, self._seconds, self._clock = failures, seconds, clock
        self._failures = 0
        self._since = clock()
        self._busy_since: float | None = None
        self.proven = proven  # something has come through

    def succeeded(self) -> None:
        self.proven = True
        self._failures = 0
        self._busy_since = None

    def starved(self, seconds: float) -> bool:
        """Count a call that was told to come later; True where all have been, for `seconds`."""
        self._busy_since = self._clock() if self._busy_since is None else self._busy_since
        return self._clock() - self._busy_since > seconds

    def failed(self) -> bool:
        """Count a failure; True where the endpoint is down."""
        if self._failures == 0:
            self._since = self._clock()
        self._failures += 1
        return self._failures >= self._needed and self._clock() - self._since >= self._seconds
