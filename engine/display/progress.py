"""Progress on stderr: rows, tokens a second and time left, of a stage and of the whole job; a live line on a terminal, a line a
minute in a log."""

import functools
import sys
import time
from collections.abc import Mapping
from types import TracebackType

from engine.display.escape import for_terminal
from judging.attempts import duration

LINE_SECONDS, FIRST_LINE_SECONDS = 60.0, 10.0  # in a log: the first line comes sooner, to see that it works
BAR = 10  # signs
MOST_PACE = 5.0
LIVE_SECONDS = 0.2
# Before this share of the rows, and this many reports of finished work, nothing can be said of the time left.
ESTIMATE_SHARE, ESTIMATE_REPORTS = 0.03, 2
TOGETHER_SECONDS = 0.05


class Job:
    """The stages of a whole job and the seconds that each is expected to take: what a stage's progress is a part of.

    While it is entered, every Progress that is named like one of the stages says how far the job is. What has been seen of
    the pace corrects what was expected of the rest.
    """

    def __init__(self, expected: Mapping[str, float], rows: Mapping[str, int] | None = None) -> None:
        """rows: of a stage that is done in several parts, each with a Progress of its own."""
        self._expected = {name: max(seconds, 1e-3) for name, seconds in expected.items()}
        self._rows = dict(rows or {})
        self._done: dict[str, float] = {}
        self._before: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> "Job":
        global _job
        _job = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        global _job
        _job = None

    def finish(self, stage: str, rows: int, seconds: float) -> None:
        """A part of a stage is over."""
        before = self._before.get(stage, (0, 0.0))
        self._before[stage] = before[0] + rows, before[1] + seconds

    def state(self, stage: str, rows: int, total: int, seconds: float) -> tuple[float, float] | None:
        """The share of the job that is done and the seconds left: `rows` of `total` in a part of a stage after `seconds`.

        None for a stage that the job does not know.
        """
        if stage not in self._expected:
            return None
        before, took = self._before.get(stage, (0, 0.0))
        share = min((before + rows) / max(self._rows.get(stage, total), 1), 1.0)
        seconds += took
        self._done[stage] = share
        done = sum(share * self._expected[name] for name, share in self._done.items())
        rest = sum(self._expected.values()) - done
        here = self._expected[stage] * share
        # What took no time, or was to take none, says nothing of the rest.
        pace = min(max(seconds / here, 1 / MOST_PACE), MOST_PACE) if share >= ESTIMATE_SHARE and here >= 1 else 1.0
        return done / (done + rest), rest * pace


_job: Job | None = None


class Progress:
    """Counts rows of `total`, and tokens where there are any. Use as a context manager."""

    def __init__(self, label: str, total: int, unit: str = "rows") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.rows = self.tokens = 0
        self._reports = 0
        self._started = self._shown = self._advanced = time.monotonic()
        self._lines = 0
        self._live = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show(end="\n")
        if _job is not None:
            _job.finish(self.label, self.rows, self.seconds)

    def advance(self, rows: int = 1, tokens: int = 0) -> None:
        """Count what is finished; rows that come together, as a batch's do, are one report."""
        now = time.monotonic()
        self.rows += rows
        self.tokens += tokens
        self._reports += now - self._advanced > TOGETHER_SECONDS
        self._advanced = now
        if now - self._shown >= (LIVE_SECONDS if self._live else LINE_SECONDS if self._lines else FIRST_LINE_SECONDS):
            self._show(end="" if self._live else "\n")

    def seconds_left(self, seconds: float) -> float | None:
        """Seconds for what is left at the pace of the first `seconds`; None where there is too little to tell."""
        if self._reports < ESTIMATE_REPORTS or self.rows < ESTIMATE_SHARE * self.total:
            return None
        return seconds / self.rows * (self.total - self.rows)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return max(time.monotonic() - self._started, 1e-9)

    def _show(self, end: str) -> None:
        self._shown = time.monotonic()
        seconds = self.seconds
        parts = [f"{self.label}: {self.rows}/{self.total} {self.unit}"]
        if self.tokens:
            parts.append(f"{self.tokens / seconds:,.0f} tokens/s")
        left = self.seconds_left(seconds)
        if not 0 < self.rows < self.total:
            parts.append(f"{seconds:.1f} s")
        elif left is not None:
            parts.append(f"{left:.0f} s left")
        parts += self._of_job(seconds)
        self._lines += 1
        start = "\r\x1b[K" if self._live else ""
        print(start + for_terminal(", ".join(parts)), end=end, file=sys.stderr, flush=True)

    def _of_job(self, seconds: float) -> list[str]:
        """How far the whole job is, with a bar on a terminal."""
        found = _job.state(self.label, self.rows, self.total, seconds) if _job is not None else None
        if found is None:
            return []
        share, left = found
        bar = f"[{'#' * round(BAR * share):<{BAR}}] " if self._live else ""
        return [f"{bar}job {100 * share:.0f} %" + (f", {duration(left)} left" if share < 1 else "")]


def say(message: str) -> None:
    """One line on stderr."""
    print(for_terminal(message), file=sys.stderr, flush=True)


@functools.cache
def say_once(message: str) -> None:
    """One line on stderr, once a process."""
    say(message)
