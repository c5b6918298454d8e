"""Says when a server is ready, with a command that works, from a process beside it; the server's own process is vLLM's."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.serving.launch import Launch

POLL_S, PATIENCE_S = 1.0, 3600.0


def announce_when_ready(launch: "Launch", server: int) -> None:
    """Start the watcher; it ends when the server answers, or is gone.

    Forked twice, so that it is nobody's zombie: this process is about to become the server, which knows of no children.
    """
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        _watch(launch, server)
    os._exit(0)


def _watch(launch: "Launch", server: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and Path("/proc", str(server)).exists():
        if _healthy(launch.url):
            sys.stderr.write(ready_lines(launch))
            sys.stderr.flush()
            return
        time.sleep(POLL_S)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/health", timeout=POLL_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ready_lines(launch: "Launch") -> str:
    """What is served, and a request to try. The key is not printed again."""
    body = json.dumps({"model": launch.models[-1].name, "messages": [{"role": "user", "content": "What time is it?"}]})
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if "VLLM_API_KEY" in launch.environment else ""
    names = ", ".join(f"{model.name} ({model.variant_hash})" for model in launch.models)
    return (
        f"ready: {names} at {launch.url}\n"
        f"try: curl {launch.url}/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'\n"
    )
