"""Which type a model runs in: by the hardware, said with its reason, the same for every stage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from engine.configs.load import load_config
from engine.environment import has_gpu
from engine.inference.arithmetic import native_types, resolve, stored_type, types_of_cpu, types_of_gpus
from engine.runs.session import Session
from tests.tiny import save_tiny

# Flags as /proc/cpuinfo lists them, those that matter: AMD Zen 3, Skylake-X, Cooper Lake, Sapphire Rapids, Zen 4, Arm.
CPUS = {
    "zen3": ("fma avx avx2", set()),
    "skylake": ("avx2 avx512f avx512bw avx512vl", set()),
    "cooper lake": ("avx512f avx512bw avx512_bf16", {"bfloat16"}),
    "zen4": ("avx512f avx512bw avx512_bf16 avx512_vnni", {"bfloat16"}),
    "sapphire rapids": ("avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", {"bfloat16", "float16"}),
    "cortex-a72": ("fp asimd evtstrm crc32", set()),
    "neoverse-n1": ("fp asimd fphp asimdhp", {"float16"}),
    "neoverse-v1": ("fp asimd fphp asimdhp bf16 i8mm", {"bfloat16", "float16"}),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpus_types_are_those_its_flags_name(cpu: str) -> None:
    flags, expected = CPUS[cpu]
    assert types_of_cpu(flags.split(), {}) == expected


@pytest.mark.parametrize("held", [{"ONEDNN_MAX_CPU_ISA": "AVX2"}, {"ATEN_CPU_CAPABILITY": "avx2"}])
def test_libraries_held_to_avx2_have_no_16_bit_types(held: dict[str, str]) -> None:
    assert types_of_cpu(["avx512_bf16", "amx_bf16"], held) == set()


def test_this_machines_cpu_is_read_as_torch_reads_it() -> None:
    """torch's own answer of the instruction, from cpuid and not from /proc/cpuinfo."""
    if has_gpu() or os.uname().machine != "x86_64":
        pytest.skip("an x86 CPU's instructions")
    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert ("bfloat16" in native_types()) == bool(instructions)


@pytest.mark.parametrize(("capabilities", "expected"), [([7.5], {"float16"}), ([8.0, 9.0], {"bfloat16", "float16"})])
def test_gpus_before_ampere_have_no_bf16(capabilities: list[float], expected: set[str]) -> None:
    assert types_of_gpus(capabilities) == expected


@pytest.mark.parametrize(
    ("asked", "stored", "native", "expected"),
    [
        ("auto", "bfloat16", {"bfloat16"}, "bfloat16"),
        ("auto", "bfloat16", set(), "float32"),
        ("auto", "float16", {"bfloat16"}, "float32"),
        ("auto", "float32", {"bfloat16"}, "float32"),
        ("bfloat16", "bfloat16", set(), "bfloat16"),
        ("float32", "bfloat16", {"bfloat16"}, "float32"),
    ],
)
def test_auto_takes_the_checkpoints_type_where_the_machine_has_it(
    asked: str, stored: str, native: set[str], expected: str
) -> None:
    assert resolve(asked, stored, native, "CPU").dtype == expected


def test_float32_says_why() -> None:
    assert resolve("auto", "bfloat16", set(), "CPU").reason == "this CPU has no bf16 arithmetic (5 to 14 times slower)"


def test_a_type_that_is_emulated_is_kept_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    resolve("bfloat16", "bfloat16", set(), "CPU").say()
    line = capsys.readouterr().err.strip()
    expected = "asked for, though this CPU has no bf16 arithmetic (5 to 14 times slower than float32)"
    assert line == f"warning: arithmetic: bfloat16: {expected}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_checkpoints_type_is_read_from_its_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    save_tiny("llama", tmp_path, dtype=dtype)
    assert stored_type(open_checkpoint(tmp_path)) == str(dtype).removeprefix("torch.")


def test_a_session_names_the_resolved_type(smollm2_dir: Path) -> None:
    session = Session(load_config("smollm2_135m_k1"))
    assert session.config.model.dtype == ("bfloat16" if "bfloat16" in native_types() else "float32")


def test_the_resolved_type_is_part_of_a_runs_identity(smollm2_dir: Path) -> None:
    session = Session(load_config("smollm2_135m_k1", {"model.dtype": "float16"}))
    assert session.identity["config"]["model"]["dtype"] == "float16"


def test_a_winners_file_keeps_what_was_asked_for(smollm2_dir: Path) -> None:
    assert Session(load_config("smollm2_135m_k1")).arithmetic.asked == "auto"


SPY = """
import os, sys
import torch
asked = []
real = torch.cuda.is_available
torch.cuda.is_available = lambda: asked.append({name: os.environ.get(name) for name in NAMES}) or real()
NAMES = ("PYTORCH_NVML_BASED_CUDA_CHECK", "VLLM_WORKER_MULTIPROC_METHOD")
from engine.commands import cli
cli.keep_stdout_clean()
from engine.environment import release_gpu_memory
release_gpu_memory()
assert not asked, "memory is given back without asking whether there is a GPU"
torch.cuda.is_available()
print(asked[0]["PYTORCH_NVML_BASED_CUDA_CHECK"], asked[0]["VLLM_WORKER_MULTIPROC_METHOD"])
"""


def test_cuda_is_asked_only_after_the_environment_keeps_that_from_poisoning_a_fork() -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("VLLM_", "PYTORCH_"))}
    done = subprocess.run([sys.executable, "-c", SPY], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "spawn"]
