"""A real `vllm serve` on loopback, with a key."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.inference.arithmetic import native_types

DTYPE = "bfloat16" if "bfloat16" in native_types() else "float32"
SMALL = ["--dtype", DTYPE, "--max-model-len", "2048", "--enforce-eager", "--kv-cache-memory-bytes", "500000000"]


@contextmanager
def serve(model: Path, name: str, key: str, log: Path) -> Iterator[str]:
    """Serve a checkpoint as `name`; gives the URL up to /v1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = Path(sys.executable).with_name("vllm")
    command = [str(vllm), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--api-key", key]
    with log.open("w") as output:
        server = subprocess.Popen([*command, "--served-model-name", name, *SMALL], stdout=output, stderr=output)
        try:
            wait_until_healthy(server, f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(60)


def wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server stopped"
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server was not ready in 300 s")
