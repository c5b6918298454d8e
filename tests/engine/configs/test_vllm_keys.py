"""A configuration runs no code: of vLLM's arguments a file sets those that size and schedule, the others with --trust-config."""

from pathlib import Path
from typing import Any

import pytest

from engine.configs.judges import load_judge
from engine.configs.load import load_config, variant_names
from engine.configs.vllm_keys import OWNED_BY_US, PLAIN, TABLES, TRUSTING, VALUES
from engine.errors import EngineError
from engine.vllm_compat import argument_names

HARMFUL: dict[str, Any] = {
    "trust_remote_code": True,
    "scheduler_cls": "evil.Scheduler",
    "logits_processors": ["evil:Thing"],
    "io_processor_plugin": "evil",
    "reasoning_parser_plugin": "/tmp/evil.py",
    "distributed_executor_backend": "evil.Executor",
    "compilation_config": {"backend": "evil.backend"},
    "additional_config": {"a": 1},
    "otlp_traces_endpoint": "http://elsewhere",
    "log_config_file": "/tmp/evil.json",
    "speculative_config": {"model": "/tmp/other"},
    "ec_transfer_config": {"ec_connector_module_path": "evil"},
    "profiler_config": {"torch_profiler_dir": "/tmp"},
    "hf_token": "x",
    "master_addr": "0.0.0.0",
    "download_dir": "/tmp",
    "generation_config": "/tmp/other",
}


@pytest.mark.parametrize("key", HARMFUL)
def test_what_may_run_code_is_refused_by_name(key: str) -> None:
    with pytest.raises(EngineError, match=rf"vllm\.{key} = .*--trust-config"):
        load_config("smollm2_135m_k1", {f"vllm.{key}": HARMFUL[key]})


def test_a_trusted_file_may_set_it() -> None:
    token = TRUSTING.set(True)
    try:
        assert load_config("smollm2_135m_k1", {"vllm.trust_remote_code": True}).vllm["trust_remote_code"] is True
        with pytest.raises(EngineError, match="not yours to set"):
            load_config("smollm2_135m_k1", {"vllm.hf_overrides": {}})
    finally:
        TRUSTING.reset(token)


def test_so_is_a_local_judges_table(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[local]\nmodel.path = "m"\n[local.vllm]\nworker_cls = "evil.Worker"\n')
    with pytest.raises(EngineError, match=r"mine\.toml: local\.vllm\.worker_cls"):
        load_judge(str(file))
    file.write_text('[local]\nmodel.path = "m"\n[local.vllm]\nquantization = "awq"\nmax_model_len = 512\n')
    judge = load_judge(str(file))
    assert judge is not None and judge.local is not None


def test_the_list_names_arguments_that_vllm_has() -> None:
    assert (set(PLAIN) | set(VALUES) | set(TABLES)) - set(argument_names()) == set()
    assert set(PLAIN) & set(OWNED_BY_US) == set()
    assert not [key for key in HARMFUL if key in PLAIN]


@pytest.mark.parametrize("name", variant_names())
def test_our_own_files_need_no_trust(name: str) -> None:
    load_config(name)


def test_the_worker_is_ours_whoever_is_trusted() -> None:
    with pytest.raises(EngineError, match=r"vllm\.worker_cls is not yours to set"):
        load_config("smollm2_135m_k1", {"vllm.worker_cls": "evil.Worker"})
