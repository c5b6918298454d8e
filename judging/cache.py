"""Every answer a judge gave, by the address of its question, in one SQLite file. Prompts are not in it, keys never were.

    cache = ReplyCache(Path("judgements.sqlite"), say=print)
    cache.put(outcomes)               # on disk when this returns
    cache.get(addresses)              # {address: Stored}

A file that is damaged is set aside under another name, and a new one begun.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from judging.calls import Outcome
from judging.errors import JudgeError

COLUMNS = "reply, attempts, latency_ms, prompt_tokens, completion_tokens, cost, error, model"
DIGEST = "digest"  # of a row: SQLite itself does not notice a flipped bit
TABLE = f"""CREATE TABLE IF NOT EXISTS answers (
    address BLOB PRIMARY KEY, {COLUMNS.replace("reply", "reply TEXT").replace("error", "error TEXT")}, {DIGEST} BLOB
) WITHOUT ROWID"""
REPLACED, KEPT, SUMS = ("reply", "error"), ("latency_ms", "model"), ("prompt_tokens", "completion_tokens", "cost")
ADDED_LATER = {"model": "TEXT", DIGEST: "BLOB"}  # a file of an earlier version gets them when it is opened
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
ADDRESSES_A_QUERY = 500
BUSY_S = 30.0
Found = TypeVar("Found")


def is_locked(error: BaseException) -> bool:
    """True where the error says that another connection holds the file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


@dataclass(frozen=True)
class Stored:
    """A cached call: its reply, or the error of its last failure. Counts that are not known are None."""

    reply: str | None
    attempts: int
    latency_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    error: str | None
    model: str | None = None


class ReplyCache:
    """A cache of replies in the SQLite file `path`.

    One connection, used by one thread at a time; other threads open their own. Other processes may use the same file: a
    writer waits for another up to BUSY_S seconds, and readers do not wait for writers (write-ahead log). Every method raises
    JudgeError where the file cannot be used. `say` is told of a damaged file.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = print) -> None:
        self.path = path
        self._say = say
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = self._open()

    def get(self, addresses: Sequence[bytes]) -> dict[bytes, Stored]:
        """The cached calls among these addresses, failed ones included; a call that was never made is absent.

        So is one whose row is not what was stored: it is forgotten, said, and asked for again the next time.
        """
        rows = self._do(lambda: list(self._select(f"address, {COLUMNS}, {DIGEST}", addresses)))
        damaged = [row[0] for row in rows if row[-1] is not None and row[-1] != digest_of(*row[:-1])]
        if damaged:
            self._say(f"judge cache: {len(damaged)} answers of {self.path.name} are damaged and forgotten; run again to ask them")
            self.forget(damaged)
        return {row[0]: _stored(row[1:-1]) for row in rows if row[0] not in set(damaged)}

    def answered(self, addresses: Sequence[bytes]) -> set[bytes]:
        """The cache hits among these addresses: calls that have a reply."""
        return self._do(lambda: {row[0] for row in self._select("address", addresses, "AND error IS NULL")})

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """Store outcomes in one transaction, on disk when this returns. A failure never replaces an answer.

        The attempts, tokens and cost of earlier failures are added to those of the answer.
        """
        rows = [
            (
                outcome.key,
                outcome.reply,
                outcome.attempts,
                outcome.latency_ms,
                outcome.prompt_tokens,
                outcome.completion_tokens,
                outcome.cost,
                None if outcome.ended == "done" else outcome.error or "unknown",
                outcome.model,
            )
            for outcome in outcomes
        ]
        self._do(lambda: self._write(rows))

    def forget(self, addresses: Iterable[bytes]) -> None:
        """Delete answers that turned out to be unusable, so that they are asked for again."""
        self._do(lambda: self._delete([(address,) for address in addresses]))

    def close(self) -> None:
        self._connection.close()

    def _select(self, columns: str, addresses: Sequence[bytes], condition: str = "") -> Iterable[tuple[Any, ...]]:
        for start in range(0, len(addresses), ADDRESSES_A_QUERY):
            part = addresses[start : start + ADDRESSES_A_QUERY]
            marks = ",".join("?" * len(part))
            yield from self._connection.execute(f"SELECT {columns} FROM answers WHERE address IN ({marks}) {condition}", part)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        marks = ",".join("?" * (1 + len(COLUMNS.split(", "))))
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO answers (address, {COLUMNS}) VALUES ({marks}) ON CONFLICT (address) DO UPDATE SET "
                + ", ".join(
                    [f"{name} = excluded.{name}" for name in REPLACED]
                    + [f"{name} = ifnull(excluded.{name}, answers.{name})" for name in KEPT]
                    + ["attempts = answers.attempts + excluded.attempts", *map(_sum_of, SUMS)]
                )
                + " WHERE excluded.error IS NULL OR answers.error IS NOT NULL",
                rows,
            )
            self._connection.executemany(
                f"UPDATE answers SET {DIGEST} = digest_of(address, {COLUMNS}) WHERE address = ?", [(row[0],) for row in rows]
            )

    def _delete(self, rows: Sequence[tuple[bytes]]) -> None:
        with self._connection:
            self._connection.executemany("DELETE FROM answers WHERE address = ?", rows)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            self._check_damaged(error)
            self._set_aside(error)
            return self._connect()

    # Two processes that make the file at once lock each other out for a moment, and SQLite's own timeout does not cover it.
    # Meanwhile this thread sleeps, the fan-out's as a rule; nothing else is locked by it.
    @retry(retry=retry_if_exception(is_locked), wait=wait_random(0, 0.2), stop=stop_after_delay(BUSY_S), reraise=True)
    def _connect(self) -> sqlite3.Connection:
        # A judge is opened by one thread and asked or closed by another, one after the other. SQLite's own check forbids
        # even that, so it is off.
        connection = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")  # what is no text has another digest
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.create_function("digest_of", 1 + len(COLUMNS.split(", ")), digest_of, deterministic=True)
            connection.execute(TABLE)
            _add_later_columns(connection)
            connection.execute(f"SELECT {COLUMNS} FROM answers LIMIT 1").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _do(self, work: Callable[[], Found]) -> Found:
        try:
            return work()
        except sqlite3.DatabaseError as error:
            self._check_damaged(error)
            self._connection.close()
            self._set_aside(error)
            self._connection = self._connect()
            return work()

    def _check_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Raise JudgeError where the file is sound and out of reach: locked, read-only, a full disk."""
        if getattr(error, "sqlite_errorcode", None) not in DAMAGED and "no such column" not in str(error):
            raise JudgeError(
                f"The judge's cache {self.path} cannot be used ({error}). Answers are kept there before they count."
            ) from error

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._say(f"judge cache: {self.path.name} is damaged ({error}); set aside as {aside.name}, a new one is begun")


def _stored(row: Sequence[Any]) -> Stored:
    """A row as it is meant: an earlier version wrote 0 for what was not counted. No question has 0 tokens, no answer either."""
    stored = Stored(*row)
    if stored.prompt_tokens != 0 and (stored.completion_tokens != 0 or stored.error is not None):
        return stored
    known = stored.prompt_tokens or None, stored.completion_tokens or None
    return replace(stored, prompt_tokens=known[0], completion_tokens=known[1], cost=None)


def digest_of(*row: Any) -> bytes:
    """A row's checksum: over its address and every column."""
    return hashlib.blake2b(repr(row).encode("utf-8", "replace"), digest_size=8).digest()


def _add_later_columns(connection: sqlite3.Connection) -> None:
    """Give a file of an earlier version the columns that came later; its answers stay."""
    names = {row[1] for row in connection.execute("PRAGMA table_info(answers)")}
    missing = {"address", *COLUMNS.split(", "), DIGEST} - names
    for name in missing if missing <= ADDED_LATER.keys() else ():
        try:
            connection.execute(f"ALTER TABLE answers ADD COLUMN {name} {ADDED_LATER[name]}")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process has just done it
                raise


def _sum_of(column: str) -> str:
    """SQL that adds a new value to the old one; NULL where a reply's is not known.

    A call without a latency has had no reply, so it adds nothing.
    """
    old, new = f"answers.{column}", f"excluded.{column}"
    return (
        f"{column} = CASE WHEN answers.latency_ms IS NULL THEN {new} WHEN excluded.latency_ms IS NULL THEN {old} "
        f"ELSE {old} + {new} END"
    )
