"""vLLM's engine as it is, which ours are measured beside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.environment import release_gpu_memory
from engine.inference.turns import start_in_turn
from engine.vllm_compat import stop_engine


@contextmanager
def plain_engine(arguments: Mapping[str, Any]) -> Iterator[Any]:
    """vLLM without anything of ours."""
    llm = start_in_turn({name: value for name, value in arguments.items() if name != "worker_extension_cls"})
    try:
        yield llm
    finally:
        stop_engine(llm)
        del llm
        release_gpu_memory()
