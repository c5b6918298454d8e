"""Which number type a model runs in: the checkpoint's 16-bit type where the hardware multiplies it, else float32.

A CPU without bf16 instructions widens every value, multiplies and rounds again: 5 to 14 times slower than float32.
Weights on disk keep their type; only the engine's copy of them is widened.
"""

import functools
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from editing.checkpoint import Checkpoint
from engine.display.progress import say_once
from engine.environment import has_gpu

AUTO, FLOAT32 = "auto", "float32"
STORED = {"BF16": "bfloat16", "F16": "float16", "F32": FLOAT32}  # safetensors' names
BYTES_PER_VALUE = {"bfloat16": 2, "float16": 2, FLOAT32: 4}
SHORT = {"bfloat16": "bf16", "float16": "fp16"}
# A CPU's flags in /proc/cpuinfo; any one of a type's says that the CPU multiplies it: x86, then Arm.
CPU_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# Instruction sets that these variables can hold the libraries to, and that have neither type.
LIMITS = {"ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX", "AVX2", "AVX2_VNNI"), "ATEN_CPU_CAPABILITY": ("default", "avx2")}
BF16_CAPABILITY = 8.0  # CUDA compute capability from which a GPU multiplies bf16: Ampere
SLOWER = "5 to 14 times slower"  # measured on AMD Zen 3: matrix products, attention, elementwise work


@dataclass(frozen=True)
class Arithmetic:
    """The type that a model runs in, under torch's name; what was asked for; why it is this one, and whether it is emulated."""

    dtype: str
    asked: str
    reason: str
    emulated: bool = False

    def say(self) -> None:
        """One line on stderr, once a process."""
        say_once(f"{'warning: ' if self.emulated else ''}arithmetic: {self.dtype}: {self.reason}")


def resolve(asked: str, stored: str, native: Iterable[str], machine: str) -> Arithmetic:
    """The type for weights stored as `stored` on a machine that multiplies `native`; `asked` is a type or `auto`.

    An explicit type is kept; where the machine emulates it, the reason says what that costs.
    """
    native = frozenset(native) | {FLOAT32}
    if asked not in (AUTO, *native):
        lacks = f"asked for, though this {machine} has no {SHORT[asked]} arithmetic ({SLOWER} than float32)"
        return Arithmetic(asked, asked, lacks, emulated=True)
    if asked != AUTO:
        return Arithmetic(asked, asked, "asked for")
    if stored in native:
        return Arithmetic(stored, asked, f"the checkpoint's own type, which this {machine} multiplies")
    return Arithmetic(FLOAT32, asked, f"this {machine} has no {SHORT[stored]} arithmetic ({SLOWER})")


def arithmetic_of(asked: str, checkpoint: Checkpoint) -> Arithmetic:
    """The type that a checkpoint runs in on this machine; `asked` is a type or `auto`."""
    return resolve(asked, stored_type(checkpoint), native_types(), "GPU" if has_gpu() else "CPU")


def stored_type(checkpoint: Checkpoint) -> str:
    """The type of most of a checkpoint's values; float32 where it is none that an edit takes."""
    values: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        values[entry.dtype] += entry.end - entry.begin
    return STORED.get(values.most_common(1)[0][0], FLOAT32) if values else FLOAT32


@functools.cache
def native_types() -> frozenset[str]:
    """The 16-bit types that this machine's GPU, or else its CPU, multiplies without emulation."""
    if has_gpu():
        return types_of_gpus(_capabilities())
    return types_of_cpu(_cpu_flags(), os.environ)


def types_of_cpu(flags: Iterable[str], environment: Mapping[str, str]) -> frozenset[str]:
    """The 16-bit types of a CPU with these flags, under variables that may hold the libraries to an older instruction set."""
    for name, limits in LIMITS.items():
        if environment.get(name, "").lower() in {limit.lower() for limit in limits}:
            return frozenset()
    there = set(flags)
    return frozenset(dtype for dtype, known in CPU_FLAGS.items() if known & there)


def types_of_gpus(capabilities: Iterable[float]) -> frozenset[str]:
    """The 16-bit types that every one of these GPUs multiplies; both where their compute capability is not known."""
    return frozenset({"float16"} | ({"bfloat16"} if all(found >= BF16_CAPABILITY for found in capabilities) else set()))


def _cpu_flags() -> set[str]:
    """The CPU's flags, of /proc/cpuinfo (Linux); what torch knows of it where there is none."""
    path = Path("/proc/cpuinfo")
    names = ("flags", "Features")  # x86, Arm
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.partition(":")[0].strip() in names:
            return set(line.partition(":")[2].split())
    import torch

    return {"bf16"} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()


def _capabilities() -> list[float]:
    """Compute capabilities of the GPUs, from nvidia-smi: asking CUDA here would take the choice of a start method from vLLM."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [float(text) for text in found if text.replace(".", "").isdigit()]
