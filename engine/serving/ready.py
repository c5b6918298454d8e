"""Says when a server is ready, with a command that works, from a process beside it; the server's own process is vLLM's.

A process of its own, not a fork: a fork would keep what this one holds of a GPU, which the server needs.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.serving.folders import Launch

POLL_S, PATIENCE_S = 1.0, 3600.0
# Proxies of the environment are for other machines.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def announce_when_ready(launch: "Launch", server: int) -> None:
    """Start the watcher; it ends when the server answers, or is gone."""
    command = [sys.executable, "-m", "engine.serving.ready", str(server), launch.url, ready_lines(launch)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def is_healthy(url: str) -> bool:
    """Whether a server answers; `url` ends in /v1."""
    try:
        with DIRECT.open(f"{url.removesuffix('/v1')}/health", timeout=POLL_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ready_lines(launch: "Launch") -> str:
    """Lines that say what is served, with a request to try. The key is not printed again."""
    body = json.dumps({"model": launch.models[-1].name, "messages": [{"role": "user", "content": "What time is it?"}]})
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if "VLLM_API_KEY" in launch.environment else ""
    names = ", ".join(f"{model.name} ({model.variant_hash})" for model in launch.models)
    return (
        f"ready: {names} at {launch.url}\n"
        f"try: curl {launch.url}/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'\n"
    )


def _watch(server: int, url: str, lines: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and Path("/proc", str(server)).exists():
        if is_healthy(url):
            sys.stderr.write(lines)
            sys.stderr.flush()
            return
        time.sleep(POLL_S)


if __name__ == "__main__":
    os.setsid()
    if os.fork() == 0:  # its parent is gone at once, so it is no child of the server's, which knows of none
        _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3])
