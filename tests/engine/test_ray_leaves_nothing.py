"""Ray's processes end with the driver that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine import cluster
from engine.errors import EngineError

ROOT = Path(__file__).parents[2]
DRIVER = """
import psutil, time
from engine.cluster import connect
connect()
import ray
ray.get(ray.remote(lambda: 1).remote())
print(*{child.pid for child in psutil.Process().children(recursive=True)}, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_no_process_is_left_after_the_driver_was_killed() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout is not None
    started = [psutil.Process(int(number)) for number in driver.stdout.readline().split()]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert any(name in " ".join(map(str, started)) for name in ("raylet", "gcs_server"))
    killed = time.monotonic()
    deadline = killed + 240  # Ray's agents look after their parent now and then
    while time.monotonic() < deadline and any(process.is_running() for process in started):
        time.sleep(0.5)
    print(f"the last of {len(started)} processes ended {time.monotonic() - killed:.0f} s after the driver", file=sys.stderr)
    assert [process for process in started if process.is_running()] == []


@pytest.mark.parametrize(
    ("environment", "travels"),
    [
        ({}, True),
        ({"RAY_ADDRESS": "head:6379"}, False),
        ({"RAY_ADDRESS": "head:6379", "RAY_USE_TLS": "1"}, True),
        ({"RAY_ADDRESS": "head:6379", cluster.KEY_IN_CLEAR: "1"}, True),
        ({"RAY_ADDRESS": "local"}, True),
    ],
)
def test_a_key_crosses_a_cluster_in_tls_alone_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], travels: bool
) -> None:
    for name in ("RAY_ADDRESS", "RAY_USE_TLS", cluster.KEY_IN_CLEAR):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if travels:
        cluster.check_key_may_travel("JUDGE_KEY")
    else:
        with pytest.raises(EngineError, match="The key in JUDGE_KEY would cross"):
            cluster.check_key_may_travel("JUDGE_KEY")
