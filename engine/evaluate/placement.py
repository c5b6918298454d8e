"""Where engines can run: GPUs and cores of this machine, and whether the Ray cluster that RAY_ADDRESS names answers."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from engine.cluster import check_address, cluster_address, connect
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.runs.machine import gpu_memory, visible_gpus
from engine.runs.session import Session
from engine.vllm_compat import memory_share

WIDTHS = (1, 2, 4, 8)  # GPUs an engine: within one node
SHARE_FOR_CACHE = 0.2  # of a card, at least: fewer tokens in the cache than that, and the batch shrinks


@dataclass(frozen=True)
class Engines:
    """How many engines, GPUs (or CPU shares) each, and why."""

    count: int
    width: int
    reason: str


def choose_engines(session: Session, count: int | None) -> Engines:
    """`count` engines, None for as many as fit: each as few GPUs wide as leave room for its cache.

    Raises EngineError for more than the machine or the cluster holds, for a model that fits nowhere, and for an address that
    does not answer.
    """
    if not has_gpu():
        return Engines(check_engines(count, 1), 1, "a CPU machine: one engine" if count is None else "as --engines asks")
    asked, cards = session.config.vllm.get("tensor_parallel_size"), gpu_memory()
    if asked is not None:
        width, reason = int(asked), f"vllm.tensor_parallel_size is {asked}"
    elif not cards:
        width, reason = 1, "no GPU is visible here to measure; vllm.tensor_parallel_size sets another width"
    else:
        size = (session.engine_bytes, session.swapped_bytes)
        width, reason = width_of(
            *size, heads=_heads(session), card=min(cards), most=len(cards), share=memory_share(session.config.vllm)
        )
    return Engines(check_engines(count, width), width, reason)


def width_of(weights: int, swapped: int, *, heads: Iterable[int], card: int, most: int, share: float) -> tuple[int, str]:
    """The smallest number of GPUs that leaves a fifth of each card for the cache, and why; else the widest there is.

    `weights` and `swapped` are the model's and W0's bytes, `card` one GPU's, `share` the part of it that vLLM claims, `most` the
    GPUs at hand; each of `heads` must be divisible by the width. Of Llama-3-70B in bf16 that
    is 4 on 80 GB cards and 2 on 141 GB. Raises EngineError where nothing is left for a cache.
    """
    widths = [width for width in WIDTHS if width <= most and all(number % width == 0 for number in heads)]
    left = {width: share * card - (weights + swapped) / width for width in widths}
    width = next((width for width in widths if left[width] >= SHARE_FOR_CACHE * card), widths[-1])
    held = f"weights {weights / width / 1e9:.1f} GB and W0 {swapped / width / 1e9:.1f} GB a GPU"
    if left[width] <= 0:
        raise EngineError(
            f"On {width} GPU(s) of {card / 1e9:.0f} GB, {held} leave nothing for a cache. Use more or larger cards, or "
            "--set model.dtype=bfloat16 where it is float32."
        )
    return width, f"{held} leave {left[width] / 1e9:.0f} of {card / 1e9:.0f} GB for the cache"


def check_engines(count: int | None, width: int) -> int:
    """How many engines of `width` GPUs: those asked for, else one per visible GPU; on a cluster, one per GPU it has.

    Raises EngineError for more than the machine or the cluster holds, and for an address that does not answer.
    """
    cores = len(os.sched_getaffinity(0))
    if address := cluster_address():
        check_address(address)
        from engine.evaluate.ray_engines import room_on_cluster

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


def _heads(session: Session) -> list[int]:
    config = session.checkpoint.config
    named = (config.get(name) for name in ("num_attention_heads", "num_key_value_heads", "n_head"))
    return [int(number) for number in named if number]
