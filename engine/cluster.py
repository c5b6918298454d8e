"""Ray: the cluster that RAY_ADDRESS names, or one started here, once something is to be fanned out."""

import os
import socket
import sys
import threading
from pathlib import Path

from engine.errors import EngineError
from engine.paths import PROJECT_DIR

CONNECT_SECONDS = 5.0
STARTING = threading.Lock()  # engines and judges may ask for Ray at once
PACKAGES = ("engine", "extraction", "editing", "judging")
KEY_IN_CLEAR = "REFUSAL_KEY_WITHOUT_TLS"
TOKEN_ADVICE = "If it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."


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


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start Ray here, unless that is done.

    Raises EngineError for an address that refuses.
    """
    with STARTING:
        _connect(cluster_address())


def _connect(address: str | None) -> None:
    if address is not None and token_at_hand():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported
    import ray

    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "refusal-rollout"}
    path = os.environ.get("PYTHONPATH", "")
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        print("ray: RAY_AUTH_MODE=disabled: whoever reaches this machine's ports can run code as you. Unset it", file=sys.stderr)
    if address is None:
        env = {"env_vars": {"PYTHONPATH": f"{PROJECT_DIR}:{path}".rstrip(":")}}
        ray.init(address="local", include_dashboard=False, num_cpus=max(os.cpu_count() or 1, 2), runtime_env=env, **quiet)
        return
    try:
        ray.init(address=address, runtime_env={"py_modules": [str(PROJECT_DIR / name) for name in PACKAGES]}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(f"RAY_ADDRESS={address} did not take us in: {str(error).splitlines()[0]} {TOKEN_ADVICE}") from error


def check_key_may_travel(name: str) -> None:
    """Raise EngineError where an actor's key would cross a cluster's network in the clear, unless KEY_IN_CLEAR asks for that.

    `name` is the variable that holds the key.
    """
    if cluster_address() is None or os.environ.get("RAY_USE_TLS") == "1" or os.environ.get(KEY_IN_CLEAR) == "1":
        return
    raise EngineError(
        f"The key in {name} would cross the cluster's network in the clear: RAY_USE_TLS is not 1. Set up Ray's TLS, unset "
        f"RAY_ADDRESS to judge from this machine, or set {KEY_IN_CLEAR}=1 where the network is trusted."
    )


def share_of_cores(place: int, count: int) -> list[int]:
    """The cores of the `place`-th of `count` engines: an even share of those this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[place * len(cores) // count : (place + 1) * len(cores) // count]
