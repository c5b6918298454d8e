"""A tiny disk of one's own: a tmpfs in a private mount namespace, for tests of a full disk."""

import subprocess
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size=64k tmpfs "$1" && shift && exec "$@"'


def run_on_tiny_disk(disk: Path, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command that sees 64 KB of disk at `disk`; skips the test where the kernel gives no private mounts."""
    disk.mkdir()
    shell = ["unshare", "--mount", "bash", "-c", MOUNT, "bash", str(disk), *command]
    run = subprocess.run(shell, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if "unshare:" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no private mounts here: {run.stderr.strip()}")
    return run
