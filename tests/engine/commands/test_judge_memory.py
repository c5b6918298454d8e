"""bin/judge as a process of its own, at an endpoint that sends what no memory holds: its peak stays small."""

import asyncio
import contextlib
import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from tests.engine.commands.judged import command, environment, judge_file, make_run
from tests.judging.imitation import Body, Imitation, Quirk
from tests.judging.test_bounded_network import endless

pytestmark = pytest.mark.slow
MOST = 300 * 10**6
ROWS = 40  # 80 calls


def zeros(count: int) -> bytes:
    """A gzip file of `count` MiB, made without holding them."""
    packed = bytearray()
    part = gzip.compress(b" " * 2**20, mtime=0)
    for _ in range(count):  # members one after another are one file
        packed += part
    return bytes(packed)


def answers(packed: bytes) -> Quirk:
    return lambda request, body: web.Response(body=packed, headers={"Content-Encoding": "gzip"})


async def fields_without_end(request: web.Request, body: Body) -> web.StreamResponse:
    """A head that goes on until the client hangs up."""
    line = request.transport
    assert isinstance(line, asyncio.Transport)
    line.write(b"HTTP/1.1 200 OK\r\n")
    while not line.is_closing():
        if line.get_write_buffer_size() < 2**20:
            line.write(b"X: " + b"y" * 2**12 + b"\r\n")
        else:
            await asyncio.sleep(0.01)
    raise asyncio.CancelledError  # nobody is there to be answered


QUIRKS: dict[str, Callable[[], Quirk]] = {
    "an ordinary endpoint": lambda: lambda request, body: None,
    "a gzip bomb of 4 GiB": lambda: answers(zeros(4096)),
    "a gzip in a gzip": lambda: answers(gzip.compress(zeros(4096))),
    "an endless body": lambda: endless,
    "an endless head": lambda: fields_without_end,
}


def peak_of(process: subprocess.Popen[bytes]) -> int:
    """The most resident bytes of a process that is waited for. The kernel's own sum would count the parent's at the fork."""
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        time.sleep(0.02)
    return peak


def judged(folder: Path, quirk: Quirk) -> tuple[int, int, float, str]:
    """Exit status, peak resident bytes, seconds and words of bin/judge at an endpoint."""
    path = make_run(folder / "run", ROWS)
    with Imitation(quirk) as server:
        judge = judge_file(folder / "mine.toml", server, timeout_s=20.0, deadline_s=40.0, max_attempts=2)
        begun = time.monotonic()
        with (folder / "log").open("w") as log:
            line = command("judge", path, "--judge", judge)
            process = subprocess.Popen(line, cwd=folder, env=environment(folder), stdout=log, stderr=log)
            peak = peak_of(process)
    return process.returncode, peak, time.monotonic() - begun, (folder / "log").read_text()


@pytest.mark.parametrize("name", QUIRKS)
def test_the_judges_memory_stays_below_300_mb(tmp_path: Path, name: str) -> None:
    status, peak, seconds, said = judged(tmp_path, QUIRKS[name]())
    print(f"{name}: {peak / 10**6:.0f} MB, {seconds:.0f} s, exit status {status}", file=sys.stderr)
    assert "Traceback" not in said
    assert peak < MOST
    assert status in ((0,) if name == "an ordinary endpoint" else (1, 2)), said  # 2: the judge gave the endpoint up
    table = tmp_path / "run" / "scores.parquet"
    scored = [row["compliance"] is not None for row in pq.read_table(table).to_pylist()] if table.exists() else []
    assert any(scored) == (name == "an ordinary endpoint")
