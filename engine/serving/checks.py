"""What is asked of a server, and what is refused before anything is made for it: an open address, a port, memory, a GPU."""

import os
import secrets
import socket
from dataclasses import dataclass

from engine.environment import has_gpu
from engine.errors import EngineError
from engine.replica import hardware_arguments
from engine.session import Session

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_VARIABLE = "VLLM_API_KEY"  # vLLM reads it; on the command line every user of the machine could
NOT_PASSED_ON = {
    "--host": "Give --host before the --: an open address needs a key.",
    "--port": "Give --port before the --.",
    "--api-key": "Give --api-key before the --: it then stays off the command line, where others can read it.",
    "--served-model-name": "Models have their variants' names.",
    "--lora-modules": "The adapters are the variants'.",
    "--model": "The weights are the variant's.",
    "--tokenizer": "The tokenizer is the model's own.",
    "--hf-overrides": "The checkpoint's own config.json holds.",
    "--load-format": "The weights are the variant's.",
    "--worker-extension-cls": "With --swappable it carries the hot swap; without, nothing of ours is in the server.",
}
MEMORY_FLAGS = ("--gpu-memory-utilization", "--kv-cache-memory")
MEMORY_MARGIN = 2**30  # bytes beside weights and cache: Python, torch, activations


@dataclass(frozen=True)
class Options:
    """Where to listen, with which key, and what is passed on to vLLM after ours."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    new_key: bool = False
    with_base: bool = False
    swappable: bool = False
    allow_changed: bool = False
    extra: tuple[str, ...] = ()


def check_extra(options: Options) -> None:
    """Raise EngineError where what follows -- takes back what bin/serve promises; vLLM takes the start of a flag for the flag."""
    for part in options.extra:
        flag = part.split("=")[0].replace("_", "-")
        ours = (name for name in NOT_PASSED_ON if len(flag) > len("--") and name.startswith(flag))
        if owned := next(ours, None):
            raise EngineError(f"{part} is not passed on to vLLM. {NOT_PASSED_ON[owned]}")


def check_address(options: Options) -> str | None:
    """The key that clients must give, None for none.

    Raises EngineError for an address beyond this machine without a key, and for a port that is taken.
    """
    key = options.api_key or os.environ.get(KEY_VARIABLE) or (secrets.token_urlsafe(24) if options.new_key else None)
    if options.host not in LOOPBACK and not key:
        raise EngineError(
            f"{options.host} can be reached from other machines, and an edited model should not be open to all of them. Give a "
            f"key with --api-key or {KEY_VARIABLE}, or have one made with --new-key."
        )
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((options.host, options.port))
        except OSError as error:
            raise EngineError(
                f"Cannot listen on {options.host}:{options.port} ({error.strerror}). Choose another --port."
            ) from None
    return key


def check_machine(session: Session, options: Options) -> None:
    """Raise EngineError where the GPU that this installation is for is missing, or memory for weights and cache is."""
    weights = sum(file.stat().st_size for file in session.checkpoint.files)
    if has_gpu():
        import torch

        if not torch.cuda.is_available():
            raise EngineError(
                "This installation's vLLM is for a GPU and none is visible. Check nvidia-smi and CUDA_VISIBLE_DEVICES, or run "
                "bin/setup --cpu."
            )
        free, total = torch.cuda.mem_get_info()
        check_gpu_memory(
            weights // int(session.config.vllm.get("tensor_parallel_size", 1)), free, _claimed(session, options, total)
        )
        return
    import psutil

    cache = int(session.config.vllm.get("kv_cache_memory_bytes", hardware_arguments(has_gpu=False)["kv_cache_memory_bytes"]))
    needed, free = weights + cache + MEMORY_MARGIN, psutil.virtual_memory().available
    if free < needed:
        raise EngineError(
            f"Serving takes about {needed / 1e9:.1f} GB here (weights {weights / 1e9:.1f}, cache {cache / 1e9:.1f}) and "
            f"{free / 1e9:.1f} GB are free. Free some, or lower vllm.kv_cache_memory_bytes."
        )


def check_gpu_memory(weights: int, free: int, claimed: int) -> None:
    """Raise EngineError where a GPU has fewer bytes free than the weights take, or than vLLM claims at its start (0: unknown)."""
    needed = max(weights + MEMORY_MARGIN, claimed)
    if free < needed:
        raise EngineError(
            f"vLLM takes {needed / 1e9:.1f} GB of the GPU (weights {weights / 1e9:.1f}) and {free / 1e9:.1f} GB are free. End "
            "what uses it (nvidia-smi lists it), or lower vllm.gpu_memory_utilization."
        )


def _claimed(session: Session, options: Options, total: int) -> int:
    """Bytes that vLLM wants free at its start: its share of the card, unless the cache has a size of its own or the command line
    says otherwise."""
    from vllm.engine.arg_utils import EngineArgs

    settings = session.config.vllm
    if "kv_cache_memory_bytes" in settings or any(part.startswith(MEMORY_FLAGS) for part in options.extra):
        return 0
    return int(total * float(settings.get("gpu_memory_utilization", EngineArgs.gpu_memory_utilization)))
