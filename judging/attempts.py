"""The attempts of one call: what they took so far, what is left of its limits, and the decision on how it goes on."""

import random
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from judging.calls import Outcome
from judging.endpoint import Endpoint
from judging.errors import Fault, FaultKind

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 20.0
SHORTEST_ATTEMPT = 0.1  # of the timeout: less time than this is not worth a paid call
LOADING_PAUSE_S = 2.0  # between two looks at a server that is loading
MAX_UNUSABLE = 2  # a judge that answers nonsense is asked once more
UNCOUNTED = ("busy", "loading", "adapted")  # faults that take none of a call's attempts


@dataclass(frozen=True)
class Decision:
    """How a call goes on after an attempt.

    ends: done, failed (this call), stopped (every call), or retry after `pause_s` seconds.
    error: the row's error, should the call end here; None where it is done.
    """

    ends: Literal["done", "retry", "failed", "stopped"]
    error: str | None = None
    pause_s: float = 0.0


DONE = Decision("done")


@dataclass
class Attempts:
    """The attempts of one call so far, and how many it may take."""

    outcome: Outcome
    allowed: int
    endpoint: Endpoint
    started: float | None = None
    waited: float = 0.0  # for a slot or the account's limits, after the first attempt
    counted: int = 0
    unusable: int = 0
    faults: list[Fault] = field(default_factory=list)

    def note(self, fault: Fault) -> None:
        """Count one more attempt that brought no verdict. What it was found in is let go: a traceback holds the body."""
        self.faults.append(fault)
        fault.__traceback__ = fault.__context__ = fault.__cause__ = None
        self.counted += fault.kind not in UNCOUNTED
        self.unusable += fault.kind == "unusable"

    def within_limits(self, decision: Decision) -> Decision:
        """The decision, with the pause of a retry; where attempts or time are used up, a retry becomes a failure."""
        fault = self.faults[-1]
        if decision.ends != "retry" or fault.kind == "adapted":
            return decision
        if fault.kind == "loading":
            return replace(decision, pause_s=LOADING_PAUSE_S)
        if self.counted >= self.allowed or self.unusable >= MAX_UNUSABLE:
            return replace(decision, ends="failed")
        pause = self.pause()
        late = self.seconds_left() - pause < SHORTEST_ATTEMPT * self.endpoint.timeout_s
        return replace(decision, ends="failed") if late else replace(decision, pause_s=pause)

    def pause(self) -> float:
        """Seconds before the next attempt, with full jitter (Brooker 2015): up to a bound that doubles with each attempt.

        What the endpoint asked for comes on top.
        """
        bound = min(FIRST_BACKOFF_S * 2 ** min(len(self.faults), 16), LONGEST_BACKOFF_S)
        return random.uniform(0, bound) + (self.faults[-1].retry_after or 0)

    def seconds_left(self) -> float:
        """Of the call's deadline, in which waiting for a slot does not count."""
        now = time.monotonic()
        return self.endpoint.deadline_s - (now - (self.started or now) - self.waited)


def again(kind: FaultKind, fault: Fault) -> Decision:
    """A retry, with the error that stands should it not be made."""
    return Decision("retry", f"{kind}: {fault}")


def duration(seconds: float) -> str:
    """Seconds as a reader takes them: 40 s, 25 min, 3.0 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
