"""This machine: versions, hardware, the project's commit, and the environment variables that libraries read."""

import functools
import gc
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path

from engine.paths import PROJECT_DIR, file_hash

# What vLLM and torch read at their import, before anything asks CUDA; whatever the user has set stays.
ALWAYS = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # INFO shows vLLM's log
    "VLLM_NO_USAGE_STATS": "1",
    # torch then counts GPUs without starting CUDA, which a forked engine could not start again.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
ON_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # an engine in this process starts in seconds, not half a minute
PACKAGES = ("vllm", "torch", "transformers", "safetensors", "pyarrow")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def has_gpu() -> bool:
    """Whether the installed vLLM runs on a GPU here: the CPU build's version ends in +cpu."""
    return not versions()["vllm"].endswith("+cpu")


def set_environment() -> None:
    """Set what vLLM and torch read at their import. Call it first: later than the first question about CUDA is too late."""
    for name, value in (ALWAYS if has_gpu() else ALWAYS | ON_CPU).items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    # Every request's tokens, on any failure. A filter, since vLLM's own set-up takes levels back.
    logging.getLogger("vllm.logging_utils.dump_input").addFilter(lambda record: False)


def release_gpu_memory() -> None:
    """Give back what torch holds of dropped models: an engine that starts next asks for the card's free memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():  # asking whether there is a GPU could start CUDA
        gc.collect()
        torch.cuda.empty_cache()


@functools.cache
def hardware() -> str:
    """One line: the GPUs by name, else the CPU and the cores this process may use."""
    if has_gpu():
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        except (OSError, subprocess.CalledProcessError):
            return "no GPU visible to a GPU build"
        return ", ".join(name.strip() for name in names if name.strip())
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return f"{model}, {len(os.sched_getaffinity(0))} cores, no GPU"


@functools.cache
def commit() -> str:
    """The project's commit, with + where the tree has changes; "unknown" outside a checkout."""
    git = ["git", "-C", str(PROJECT_DIR)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def describe() -> dict[str, object]:
    """For a manifest: versions, hardware, commit, and the lock of all other versions."""
    return {"versions": versions(), "hardware": hardware(), "commit": commit(), "lock": lock_hash()}


@functools.cache
def lock_hash() -> str:
    """The hash of the list of versions that bin/setup installs here; "unknown" outside a checkout."""
    file = PROJECT_DIR / "bin" / "locks" / ("gpu.txt" if has_gpu() else "cpu.txt")
    return file_hash(file) if file.is_file() else "unknown"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
