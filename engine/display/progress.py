"""Progress on stderr: rows, tokens a second and time left; a live line on a terminal, a line now and then in a log."""

import functools
import sys
import time
from types import TracebackType

from engine.display.escape import for_terminal

LINE_SECONDS = 10.0
LIVE_SECONDS = 0.2
# Before this share of the rows, and this many reports of finished work, nothing can be said of the time left.
ESTIMATE_SHARE, ESTIMATE_REPORTS = 0.03, 2
TOGETHER_SECONDS = 0.05


class Progress:
    """Counts rows of `total`, and tokens where there are any. Use as a context manager."""

    def __init__(self, label: str, total: int, unit: str = "rows") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.rows = self.tokens = 0
        self._reports = 0
        self._started = self._shown = self._advanced = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show(end="\n")

    def advance(self, rows: int = 1, tokens: int = 0) -> None:
        """Count what is finished; rows that come together, as a batch's do, are one report."""
        now = time.monotonic()
        self.rows += rows
        self.tokens += tokens
        self._reports += now - self._advanced > TOGETHER_SECONDS
        self._advanced = now
        if now - self._shown >= (LIVE_SECONDS if self._live else LINE_SECONDS):
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
        start = "\r\x1b[K" if self._live else ""
        print(start + for_terminal(", ".join(parts)), end=end, file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line on stderr."""
    print(for_terminal(message), file=sys.stderr, flush=True)


@functools.cache
def say_once(message: str) -> None:
    """One line on stderr, once a process."""
    say(message)
