"""Whether this machine can start the engine that a configuration asks for: one message, before a model loads."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from engine.cluster import cluster_address
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.inference.arithmetic import BYTES_PER_VALUE
from engine.runs.inputs import RunInputs
from engine.runs.session import Session
from engine.vllm_compat import device_bytes, memory_share

DRIVER = 580  # NVIDIA's driver branch of CUDA 13, which torch and vLLM are built for
NODES = Path("/sys/devices/system/node")


def check_machine(session: Session) -> None:
    """Raise EngineError where the engine could not start here: GPUs, driver, compiler, and room for one request.

    Engines on a cluster (RAY_ADDRESS) are on other machines, which this one cannot see.
    """
    if cluster_address() is not None:
        return
    width = int(session.config.vllm.get("tensor_parallel_size", session.width or 1))
    if not has_gpu():
        check_cpu_width(width, memory_nodes(), os.environ)
        return
    check_compiler(compiler(), header())
    gpus, driver = gpu_memory(), driver_version()
    check_gpus(width, len(gpus), driver)
    check_card(session, width, min(gpus))


def check_cpu_width(width: int, nodes: int, environment: "os._Environ[str] | dict[str, str]") -> None:
    """Raise EngineError for more tensor-parallel workers than a CPU machine has memory nodes: vLLM binds one to each."""
    if width > nodes and "VLLM_CPU_SIM_MULTI_NUMA" not in environment:
        raise EngineError(
            f"vllm.tensor_parallel_size = {width}, but this CPU machine has {nodes} memory node(s), and each worker takes one. "
            "Leave the setting out: one engine uses all cores."
        )


def check_gpus(width: int, gpus: int, driver: str | None) -> None:
    """Raise EngineError where the GPU build finds no GPU, with the driver's part in it, or fewer than an engine takes."""
    if gpus == 0:
        old = driver is not None and int(driver.split(".")[0]) < DRIVER
        found = f"the NVIDIA driver is {driver}, and this build needs {DRIVER} or newer" if old else "none is visible"
        remedy = "Update the driver" if old else "Check nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise EngineError(f"This installation's vLLM is for a GPU: {found}. {remedy}, or run bin/setup --cpu.")
    if width > gpus:
        raise EngineError(
            f"vllm.tensor_parallel_size = {width}, but this machine has {gpus} visible GPU(s). Lower it to {gpus} or less."
        )


def check_compiler(compiler: str | None, header: Path) -> None:
    """Raise EngineError where Triton could not build its launchers: it needs a C compiler and Python's headers."""
    if compiler is None:
        raise EngineError("vLLM's GPU kernels need a C compiler, and none of cc, gcc, clang is on the PATH. Install gcc.")
    if not header.is_file():
        raise EngineError(f"vLLM's GPU kernels need Python's headers; {header} is missing. Install them (Debian: python3-dev).")


def check_card(session: Session, width: int, card: int) -> None:
    """Raise EngineError where a GPU of `card` bytes cannot hold weights, W0 and the cache of one request."""
    length = int(session.window or session.config.vllm["max_model_len"]) if _plain_window(session) else 0
    share = memory_share(session.config.vllm)
    weights, kept, cache = (size // width for size in (session.engine_bytes, session.swapped_bytes, cache_bytes(session, length)))
    if weights + kept + cache > share * card:
        raise EngineError(
            f"A GPU of {card / 1e9:.0f} GB (share {share:g}) is too small: weights take {weights / 1e9:.1f} GB, what a swap "
            f"keeps {kept / 1e9:.1f}, and the cache of one request of {length} tokens {cache / 1e9:.1f}. Lower "
            "vllm.max_model_len, or raise vllm.tensor_parallel_size."
        )


def cache_bytes(session: RunInputs, length: int) -> int:
    """Keys and values of one request of `length` tokens, bytes; 0 where layers have windows or states of other sizes."""
    config = session.checkpoint.config
    heads = config.get("num_key_value_heads", config.get("num_attention_heads"))
    if not heads or "sliding_window" in config or "layer_types" in config:
        return 0
    head_size = config.get("head_dim") or session.checkpoint.hidden_size // config["num_attention_heads"]
    return int(2 * session.checkpoint.num_layers * heads * head_size * BYTES_PER_VALUE[session.config.model.dtype] * length)


def _plain_window(session: Session) -> bool:
    """Whether the window is a number; 8k and auto are vLLM's to read."""
    return session.window is not None or str(session.config.vllm["max_model_len"]).isdigit()


def memory_nodes() -> int:
    """Memory (NUMA) nodes of this machine; 1 where the system does not say."""
    return max(len(list(NODES.glob("node[0-9]*"))), 1)


def gpu_memory() -> list[int]:
    """Total bytes of each GPU that this process may use."""
    return [device_bytes(gpu) for gpu in range(visible_gpus())]


def visible_gpus() -> int:
    """GPUs that this process may use."""
    import torch

    return int(torch.cuda.device_count())


def driver_version() -> str | None:
    """NVIDIA's driver version; None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return None
    return found[0] if found and found[0].split(".")[0].isdigit() else None


def compiler(names: Sequence[str] = ("cc", "gcc", "clang")) -> str | None:
    """The first C compiler on the PATH, or the one that CC names."""
    return os.environ.get("CC") or next((path for name in names if (path := shutil.which(name))), None)


def header() -> Path:
    """Where Python.h of this Python should be."""
    return Path(sysconfig.get_path("include")) / "Python.h"
