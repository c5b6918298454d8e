"""Where engines can run: GPUs and cores of this machine, and whether the Ray cluster that RAY_ADDRESS names answers."""

import os
import socket
from pathlib import Path

from engine.environment import has_gpu
from engine.errors import EngineError

CONNECT_SECONDS = 5.0


def cluster_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where Ray is to be started here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def token_at_hand() -> bool:
    """Whether Ray would find an authentication token: clusters ask for one by default."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def check_address(address: str) -> None:
    """Raise EngineError unless something listens at HOST:PORT (or ray://HOST:PORT); `auto` is Ray's to find."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise EngineError(
            f"RAY_ADDRESS={address} cannot be reached ({error}). Expected HOST:PORT of a running cluster; unset it to run here."
        ) from error


def share_of_cores(place: int, count: int) -> list[int]:
    """The cores of the `place`-th of `count` engines: an even share of those this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[place * len(cores) // count : (place + 1) * len(cores) // count]


def check_engines(count: int | None, width: int) -> int:
    """How many engines of `width` GPUs: those asked for, else one per visible GPU; on a cluster, one per GPU it has.

    Raises EngineError for more than the machine or the cluster holds, and for an address that does not answer.
    """
    cores = len(os.sched_getaffinity(0))
    if address := cluster_address():
        check_address(address)
        from engine.sweep.ray_engines import connect, room_on_cluster

        connect()
        there = room_on_cluster("GPU", width) if has_gpu() else room_on_cluster("CPU", 1)
        where = "the Ray cluster"
    else:
        there = visible_gpus() // width if has_gpu() else cores
        where = "this machine"
    if count is not None and count > there:
        what = f"group(s) of {width} GPU(s)" if has_gpu() else "CPU core(s)"
        raise EngineError(f"--engines {count}, but {where} has {there} {what}. Ask for at most {there}.")
    return count or (max(there, 1) if has_gpu() else 1)


def visible_gpus() -> int:
    """GPUs that this process may use."""
    import torch

    return int(torch.cuda.device_count())
