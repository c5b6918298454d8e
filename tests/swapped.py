"""A real engine on a tiny checkpoint, ready for hot swaps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from engine.configs.load import validate
from engine.configs.schema import RunConfig
from engine.environment import set_environment
from engine.inference.arguments import engine_arguments
from engine.inference.replica import Replica
from engine.models.locate import checkpoint_hash
from engine.models.variant import Variant

SMALL = {"skip_tokenizer_init": True, "kv_cache_memory_bytes": 2**26}


@contextmanager
def tiny_replica(
    folder: Path,
    scope: Scope | None = None,
    vllm: dict[str, Any] | None = None,
    sampling: dict[str, Any] | None = None,
    **model: str,
) -> Iterator[tuple[Replica, Variant, Path]]:
    """An engine on the checkpoint in `folder`, its base and the folder; `model` are keys of a configuration's [model].

    scope: what the engine is opened for; None for the study's. vllm, sampling: keys of a configuration's tables.
    """
    set_environment()
    table = {"variant": "tiny", "model": {"path": str(folder), **model}, "directions": {"layers": [1]}}
    config: RunConfig = validate({**table, "vllm": {**SMALL, **(vllm or {})}, "sampling": sampling or {}}, "a test")
    checkpoint = open_checkpoint(folder)
    base = Variant("base", checkpoint_hash(checkpoint), plan_edit(checkpoint, scope), None)
    replica = Replica(engine_arguments(config, folder, has_gpu=False), base)
    try:
        yield replica, base, folder
    finally:
        replica.close()
