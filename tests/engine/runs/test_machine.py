"""What a machine lacks for the engine that is asked for: one message each, before a model loads."""

from pathlib import Path

import pytest

from engine.configs.load import load_config
from engine.errors import EngineError
from engine.runs.machine import cache_bytes, check_card, check_compiler, check_cpu_width, check_gpus, memory_nodes
from engine.runs.session import Session

GB = 10**9


@pytest.fixture(scope="module")
def session(smollm2_dir: Path) -> Session:
    return Session(load_config("smollm2_135m_k1"))


def test_more_workers_than_a_cpu_machine_has_memory_nodes_are_refused() -> None:
    with pytest.raises(EngineError, match=r"vllm\.tensor_parallel_size = 2, but this CPU machine has 1 memory node"):
        check_cpu_width(2, 1, {})


def test_nodes_that_are_simulated_are_taken() -> None:
    check_cpu_width(2, 1, {"VLLM_CPU_SIM_MULTI_NUMA": "1"})


def test_this_machine_has_a_memory_node() -> None:
    assert memory_nodes() >= 1


def test_a_driver_older_than_the_wheels_cuda_is_named() -> None:
    with pytest.raises(EngineError, match=r"driver is 535\.104, and this build needs 580 or newer\. Update the driver"):
        check_gpus(1, 0, "535.104")


def test_a_gpu_that_is_hidden_is_not_the_drivers_fault() -> None:
    with pytest.raises(EngineError, match=r"none is visible\. Check nvidia-smi and CUDA_VISIBLE_DEVICES"):
        check_gpus(1, 0, "580.65.06")


def test_more_gpus_than_there_are_are_refused() -> None:
    with pytest.raises(EngineError, match=r"tensor_parallel_size = 4, but this machine has 2 visible GPU\(s\)"):
        check_gpus(4, 2, "580.65.06")


def test_a_missing_compiler_is_named() -> None:
    with pytest.raises(EngineError, match="need a C compiler"):
        check_compiler(None, Path(__file__))


def test_missing_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"Python.h is missing"):
        check_compiler("/usr/bin/gcc", tmp_path / "Python.h")


def test_the_cache_of_a_request_is_counted_by_hand(session: Session) -> None:
    """SmolLM2: 30 blocks, keys and values of 3 heads of 64."""
    size = 4 if session.config.model.dtype == "float32" else 2
    assert cache_bytes(session, 1000) == 2 * 30 * 3 * 64 * size * 1000


def test_a_card_too_small_for_the_window_is_refused(session: Session) -> None:
    with pytest.raises(EngineError, match=r"A GPU of 0 GB .* is too small: weights take .* the cache of one request"):
        check_card(session, 1, GB // 5)


def test_a_card_that_holds_it_is_taken(session: Session) -> None:
    check_card(session, 1, 8 * GB)
