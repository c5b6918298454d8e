"""Shared fixtures: tiny random models of every family, and the embedded SmolLM2-135M-Instruct."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A core each. Two workers with two threads each wait for one another at every product: five times slower here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "170"  # xdist says 80, and what commands print is looked at in one width

import pytest
import torch

from tests.tiny import EDITOR_CONFIGS, save_tiny

# Files that take minutes, the longest first: begun last, one of them would leave a core idle in the end.
LONG = (
    "test_sweep_command",
    "test_rollout_command",
    "test_study_commands",
    "test_judged_rollouts",
    "test_engine_process",
    "test_notebook",
    "test_edit_command",
    "test_replica",
    "test_swap_behind_norms",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, then the rest as collected."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def machine_dtype() -> torch.dtype:
    """The type that a bf16 checkpoint runs in here: emulated bf16 is ten times slower than float32."""
    from engine.inference.arithmetic import native_types

    return torch.bfloat16 if "bfloat16" in native_types() else torch.float32


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The embedded model's folder, converted once into the project's cache."""
    from engine.models.embedded import embedded_model

    return embedded_model()


@pytest.fixture(scope="session", params=sorted(EDITOR_CONFIGS))
def tiny_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random bf16 checkpoint of each family."""
    return save_tiny(request.param, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama checkpoint, single file."""
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def sharded_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same layout in several shards with an index."""
    return save_tiny("llama", tmp_path_factory.mktemp("sharded"), max_shard_size="40KB")
