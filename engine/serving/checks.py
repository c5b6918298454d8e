"""A server's options, and the checks before anything is made for it: an open address, a port, memory, a GPU."""

import os
import secrets
import socket
from dataclasses import dataclass
from itertools import zip_longest

from engine.environment import has_gpu
from engine.errors import EngineError
from engine.inference.arguments import hardware_arguments, share_beside_swaps
from engine.runs.inputs import RunInputs
from engine.runs.machine import (
    cache_bytes,
    check_compiler,
    check_gpus,
    compiler,
    driver_version,
    header,
    visible_gpus,
)
from engine.vllm_compat import device_bytes, memory_share

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOSTS_VARIABLE = "REFUSAL_ALLOWED_HOSTS"  # names with commas; empty or unset: any
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
KEY_VARIABLE = "VLLM_API_KEY"  # vLLM reads it; on the command line every user of the machine could
OF_THE_VARIANT = "It would make another model of the variant."
NOT_PASSED_ON = {
    "--host": "Give --host before the --: an open address needs a key.",
    "--port": "Give --port before the --.",
    "--api-key": f"Set {KEY_VARIABLE}, or give --api-key-fd before the --: others can read a command line.",
    "--uds": "The ready line and --port are of an address.",
    "--grpc": "It listens without a key.",
    "--headless": "It serves nothing.",
    "--config": "Give its options themselves: a file can open the server.",
    "--served-model-name": "Models have their variants' names.",
    "--lora-modules": "The adapters are the variants'.",
    "--worker-extension-cls": "With --swappable it carries the hot swap; without, nothing of ours is in the server.",
    "--dtype": "Set model.dtype: --set model.dtype=float16.",
    **dict.fromkeys(("--model", "--revision", "--tokenizer", "--hf-overrides", "--hf-config-path"), OF_THE_VARIANT),
    **dict.fromkeys(("--load-format", "--quantization"), OF_THE_VARIANT),
}
ONE_ENGINE = "--swappable holds one engine behind one door: another would go on with the old variant."
ELSEWHERE = "--swappable cannot empty a cache elsewhere of the old weights' keys and values."
NOT_SWAPPABLE = {
    **dict.fromkeys(("--api-server-count", "-asc", "--data-parallel", "-dp"), ONE_ENGINE),
    **dict.fromkeys(("--kv-transfer-config", "--kv-offloading"), ELSEWHERE),
    "--enable-lora": "A hot swap does not take LoRA layers.",
}
NOT_STEERABLE = {
    **dict.fromkeys(("--worker-cls", "--additional-config"), "With --steerable they carry the interventions."),
    **dict.fromkeys(("--api-server-count", "-asc"), "--steerable has one door, which knows the variants."),
    **dict.fromkeys(("--pipeline-parallel", "-pp", "--speculative-config"), "Interventions do not go with it."),
}
MEMORY_FLAGS = ("--gpu-memory-utilization", "--kv-cache-memory")
MOST_KEY = 4096
MEMORY_MARGIN = 2**30  # bytes beside weights and cache: Python, torch, activations


@dataclass(frozen=True)
class ServeOptions:
    """Where to listen, with which key, and what is passed on to vLLM after ours."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    new_key: bool = False
    with_base: bool = False
    swappable: bool = False
    steerable: bool = False
    allow_changed: bool = False
    extra: tuple[str, ...] = ()


def check_extra(options: ServeOptions) -> None:
    """Raise EngineError where what follows -- takes back what bin/serve promises; vLLM takes the start of a flag for the flag."""
    ways = {"--with-base": options.with_base, "--swappable": options.swappable, "--steerable": options.steerable}
    if len(chosen := [flag for flag, is_chosen in ways.items() if is_chosen]) > 1:
        raise EngineError(f"{' and '.join(chosen)} are two ways to serve. Choose one; --steerable and --swappable hold the base.")
    for flag in _flags(options):
        reasons = [why for name, why in NOT_PASSED_ON.items() if len(flag) > len("--") and name.startswith(flag)]
        reasons += [why for name, why in NOT_SWAPPABLE.items() if options.swappable and flag.startswith(name)]
        reasons += [why for name, why in NOT_STEERABLE.items() if options.steerable and flag.startswith(name)]
        if reasons:
            raise EngineError(f"{flag} is not passed on to vLLM. {reasons[0]}")


def check_settings(session: RunInputs, options: ServeOptions) -> None:
    """Raise EngineError for a configuration's [vllm] table that --swappable cannot keep."""
    for name in session.config.vllm if options.swappable else ():
        flag = f"--{name.replace('_', '-')}"
        if refused := next((known for known in NOT_SWAPPABLE if flag.startswith(known)), None):
            raise EngineError(f"vllm.{name} does not go with --swappable. {NOT_SWAPPABLE[refused]}")


def _flags(options: ServeOptions) -> dict[str, str]:
    """vLLM's flags after the --, in their plain form, with what follows each: --a_b=1 and --a-b 1 are the same."""
    found = {}
    for part, after in zip_longest(options.extra, options.extra[1:], fillvalue=""):
        name, equals, value = part.partition("=")
        if part.startswith("-"):
            found[name.split(".")[0].replace("_", "-")] = value if equals else after
    return found


def read_key(descriptor: int) -> str:
    """A key from an open descriptor. Raises EngineError for one that is not open, and for an empty or long key."""
    try:
        data = os.read(descriptor, MOST_KEY + 1)
        key = data.decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise EngineError(f"--api-key-fd {descriptor} gives no key ({error}). Try: --api-key-fd 0 < FILE") from error
    if not key or len(data) > MOST_KEY or not key.isprintable() or " " in key:
        raise EngineError(f"--api-key-fd {descriptor} gives no key: expected one line of 1 to {MOST_KEY} characters.")
    return key


def given_key(options: ServeOptions) -> str | None:
    """The user's own key."""
    return options.api_key or os.environ.get(KEY_VARIABLE) or None


def check_address(options: ServeOptions) -> str | None:
    """The key that clients must give, None for none.

    Raises EngineError for an address beyond this machine without a key, and for a port that is taken.
    """
    key = given_key(options) or (secrets.token_urlsafe(24) if options.new_key else None)
    if options.host not in LOOPBACK and not key:
        raise EngineError(
            f"{options.host} can be reached from other machines, and an edited model should not be open to all of them. Give a "
            f"key with {KEY_VARIABLE} or --api-key-fd, or have one made with --new-key."
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


def check_machine(session: RunInputs, options: ServeOptions) -> None:
    """Raise EngineError where the GPU that this installation is for is missing, or memory for weights and cache is."""
    weights = session.engine_bytes
    if has_gpu():
        split = int(_setting(session, options, "tensor_parallel_size", "-tp") or 1)
        check_gpus(split, visible_gpus(), driver_version())
        check_compiler(compiler(), header())
        import torch

        free, total = torch.cuda.mem_get_info()
        check_gpu_memory(weights // split, free, _claimed(session, options, total))
        return
    import psutil

    default = hardware_arguments(has_gpu=False)["kv_cache_memory_bytes"]
    asked = str(_setting(session, options, "kv_cache_memory_bytes") or default)
    window = _setting(session, options, "max_model_len") or "0"
    if not asked.isdigit() or not window.isdigit():  # 1G, 8k and auto are vLLM's to read
        return
    cache = int(asked)
    needed, free = weights + cache + MEMORY_MARGIN, psutil.virtual_memory().available
    if free < needed:
        raise EngineError(
            f"Serving takes about {needed / 1e9:.1f} GB here (weights {weights / 1e9:.1f}, cache {cache / 1e9:.1f}) and "
            f"{free / 1e9:.1f} GB are free. Free some, or lower vllm.kv_cache_memory_bytes."
        )
    check_window(session, int(window), cache)


def check_window(session: RunInputs, length: int, cache: int) -> None:
    """Raise EngineError where the cache cannot hold one request of the model's length (`length`; 0: the model's own window)."""
    length = length or int(session.checkpoint.config.get("max_position_embeddings", 0))
    needed = cache_bytes(session, length)
    if needed > cache:
        raise EngineError(
            f"One request of {length} tokens takes {needed / 1e9:.1f} GB of cache, and the cache has {cache / 1e9:.1f}. Shorten "
            "the window (-- --max-model-len N), or raise vllm.kv_cache_memory_bytes."
        )


def check_gpu_memory(weights: int, free: int, claimed: int) -> None:
    """Raise EngineError where a GPU has fewer bytes free than the weights take, or than vLLM claims at its start (0: unknown)."""
    needed = max(weights + MEMORY_MARGIN, claimed)
    if free < needed:
        raise EngineError(
            f"vLLM takes {needed / 1e9:.1f} GB of the GPU (weights {weights / 1e9:.1f}) and {free / 1e9:.1f} GB are free. End "
            "what uses it (nvidia-smi lists it), or lower vllm.gpu_memory_utilization."
        )


def _claimed(session: RunInputs, options: ServeOptions, total: int) -> int:
    """Bytes that vLLM wants free at its start: its share of the card, unless the cache has a size of its own or the command line
    says otherwise."""
    if any(flag.startswith(MEMORY_FLAGS) for flag in _flags(options)) or "kv_cache_memory_bytes" in session.config.vllm:
        return 0
    return int(total * memory_share(session.config.vllm))


def share_for_swaps(session: RunInputs, options: ServeOptions) -> dict[str, float]:
    """vLLM's share of the GPU that holds, the user's or vLLM's own, less what swaps keep there."""
    names = ("gpu_memory_utilization", "tensor_parallel_size", "kv_cache_memory_bytes")
    given = {name: _setting(session, options, name, "-tp" if name.startswith("tensor") else "") for name in names}
    table = {**session.config.vllm, **{name: value for name, value in given.items() if value is not None}}
    config = session.config.model_copy(update={"vllm": table})
    return share_beside_swaps(config, session.checkpoint.directory, device_bytes())


def _setting(session: RunInputs, options: ServeOptions, name: str, short: str = "") -> str | None:
    """A vLLM argument as given after the --, else in the configuration; None where it is in neither."""
    given = _flags(options)
    found = given.get(f"--{name.replace('_', '-')}", given.get(short, session.config.vllm.get(name)))
    return None if found is None else str(found)
