"""Measures the judging: calls a second against a mock of fixed capacity, cached rows read again, and memory as rows grow.

The mock (engine.benchmarks.mock_endpoint) runs in a process of its own on the same cores; its capacity is slots / latency.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.benchmarks.mock_endpoint import VERDICT
from engine.environment import describe
from engine.errors import EngineError
from engine.paths import PROJECT_DIR
from engine.runs import parquet
from engine.runs.files import ROLLOUTS, SCORES
from engine.runs.parquet_reader import count_rows
from engine.runs.schemas import ROLLOUT_SCHEMA
from engine.scoring.open import open_asker
from engine.scoring.scores import batches, item_of, score_run
from judging.cache import ReplyCache
from judging.calls import Outcome
from judging.endpoint import Endpoint
from judging.judgement import Item
from judging.remote import Asker, RemoteJudge, call_of
from judging.rubric import Rubric

SLOTS, LATENCY_S = 64, 0.2
MEMORY_ROWS = (1_000, 100_000)
RESPONSE = "It is usually mild in May, with light rain in the mornings and long evenings. " * 4


def bench_judge(calls: int, slots: int) -> dict[str, Any]:
    """Calls against the mock through Ray, then cached rows in fresh processes."""
    throughput = measure_calls(calls, slots)
    cached = {rows: measure_cached(rows) for rows in MEMORY_ROWS}
    few, many = MEMORY_ROWS
    return {
        **throughput,
        "cached_rows_per_second": cached[many]["rows_per_second"],
        "cached_rows": many,
        **{f"peak_rss_mb_{rows}_rows": figures["peak_rss_mb"] for rows, figures in cached.items()},
        "memory_ratio": round(cached[many]["peak_rss_mb"] / cached[few]["peak_rss_mb"], 3),
        "model": "mock endpoint",
        "openai": version("openai"),
        "ray": version("ray"),
        **describe(),
    }


def measure_calls(calls: int, slots: int) -> dict[str, Any]:
    """The share of the mock's capacity that the fan-out reaches, from its first call in Ray actors to its last answer."""
    with tempfile.TemporaryDirectory(prefix="bench-judge-") as folder, mock(slots) as url:
        endpoint = Endpoint(base_url=url, model="mock", max_concurrency=slots * 3 // 2)
        rubric = Rubric()
        asker = open_asker(endpoint, rubric, expected=calls, cache=Path(folder) / "cache.sqlite")
        judge = RemoteJudge("mock", asker, rubric)
        items = [Item(f"What is the weather in place {number} like in May?", RESPONSE, "stop") for number in range(calls)]
        started = time.monotonic()
        judge.ask(items)
        judge.drain()
        total = time.monotonic() - started
        counts = asker.fanout.counts
        judge.close()
    if counts.done != calls:
        raise EngineError(f"{counts.failed} of {calls} calls to the mock failed, so there is nothing to report.")
    if not counts.seconds_of_crew:
        raise EngineError(f"{calls} calls were done before Ray had started. Ask for more with --calls.")
    rate = (calls - counts.done_by_first_crew) / counts.seconds_of_crew
    return {
        "calls": calls,
        "slots": slots,
        "capacity_per_second": slots / LATENCY_S,
        "calls_per_second": round(rate, 1),
        "capacity_share": round(rate / (slots / LATENCY_S), 3),
        "seconds_with_start": round(total, 1),
        "attempts": counts.attempts,
    }


@contextmanager
def mock(slots: int) -> Iterator[str]:
    """The mock in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "engine.benchmarks.mock_endpoint", str(slots), str(LATENCY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_DIR) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def measure_cached(rows: int) -> dict[str, float]:
    """Re-judge a run whose answers are all cached, in a fresh process: rows a second, and its peak memory."""
    with tempfile.TemporaryDirectory(prefix="bench-judge-") as folder:
        make_run(Path(folder), rows)
        command = [sys.executable, "-m", "engine.benchmarks.judge", folder]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT_DIR)
        return dict(json.loads(result.stdout.splitlines()[-1]))


def make_run(folder: Path, rows: int) -> None:
    """A run directory of `rows` responses, and a cache that holds a verdict on each."""
    columns = dict.fromkeys(ROLLOUT_SCHEMA.names)
    table = [
        columns
        | {"variant_hash": "v", "prompt_id": f"p{number}", "prompt": f"Question {number}?", "response": RESPONSE, "form": "base"}
        for number in range(rows)
    ]
    parquet.write_table(folder / ROLLOUTS, table, ROLLOUT_SCHEMA)
    asker = offline_asker(folder)
    cache = ReplyCache(folder / "cache.sqlite")
    for part in batches(folder / ROLLOUTS):
        calls = [call_of(asker.endpoint, asker.hooks, item_of(row)) for row in part]
        cache.put([Outcome(call.key, "done", VERDICT, attempts=1, prompt_tokens=800, completion_tokens=30) for call in calls])
    cache.close()
    asker.close()


def offline_asker(folder: Path) -> Asker:
    """Asks nobody: every answer is in the folder's cache."""
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", model="mock")
    return open_asker(endpoint, Rubric(), expected=1, cache=folder / "cache.sqlite")


def read_cached(folder: Path) -> dict[str, float]:
    """Score the folder's run from its cache."""
    import pyarrow.parquet as pq

    rows = count_rows(folder / ROLLOUTS)
    asker = offline_asker(folder)
    judge = RemoteJudge("mock", asker, Rubric())
    started = time.monotonic()
    score_run(folder, judge)
    seconds = time.monotonic() - started
    peak = peak_rss_mb()
    judge.close()
    if asker.fanout.counts.cached != rows or pq.read_table(folder / SCORES, columns=["error"])["error"].null_count != rows:
        raise EngineError("Not every row was read from the cache.")
    return {"rows_per_second": round(rows / seconds), "peak_rss_mb": peak}


def peak_rss_mb() -> float:
    """This process's largest resident size. Not getrusage's: that one starts at the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    print(json.dumps(read_cached(Path(sys.argv[1]))))
