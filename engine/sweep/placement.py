"""Where engines can run: GPUs and cores of this machine, and whether the Ray cluster that RAY_ADDRESS names answers."""

import os

from engine.cluster import check_address, cluster_address, connect
from engine.environment import has_gpu
from engine.errors import EngineError


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
        from engine.sweep.ray_engines import room_on_cluster

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
