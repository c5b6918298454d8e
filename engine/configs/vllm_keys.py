"""Which of vLLM's arguments a configuration may set: files pass between people, and some arguments run code.

What is listed here sizes and schedules. Anything else that vLLM knows is taken with --trust-config alone: it may name a class
to import, a plug-in, a file to read or write, or an address.
"""

import difflib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from engine.errors import EngineError
from engine.vllm_compat import argument_names

TRUSTING = ContextVar("trusting", default=False)
"""Whether configuration files may set any argument: --trust-config."""
# vLLM arguments that would change which weights or prompts a row is about, behind the variant hash's back.
OWNED_BY_US = {
    "model": "Set model.path.",
    "revision": "Set model.revision.",
    "dtype": "Set model.dtype.",
    "seed": "Set sampling.seed.",
    "tokenizer": "Prompts are rendered with the model's own tokenizer.",
    "load_format": "The engine loads the base checkpoint itself.",
    "config_format": "The engine opens the files that transformers opens.",
    "hf_overrides": "The checkpoint's own config.json holds.",
    "hf_config_path": "The checkpoint's own config.json holds.",
    "worker_cls": "Set edit.form: an engine that intervenes while it runs has a worker of its own.",
    "worker_extension_cls": "It carries the hot swap.",
    "enable_lora": "A hot swap does not take LoRA layers.",
    "quantization": "A hot swap takes unquantised weights.",
    "kv_transfer_config": "A hot swap cannot empty a cache elsewhere of the old weights' keys and values.",
    "kv_offloading_size": "A hot swap cannot empty a cache elsewhere of the old weights' keys and values.",
}
PLAIN = frozenset(
    (
        "async_scheduling",
        "attention_backend",
        "block_size",
        "cp_kv_cache_interleave_size",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "data_parallel_size",
        "decode_context_parallel_size",
        "disable_cascade_attn",
        "disable_chunked_mm_input",
        "disable_custom_all_reduce",
        "disable_hybrid_kv_cache_manager",
        "disable_log_stats",
        "disable_sliding_window",
        "enable_batch_sharded_sampling",
        "enable_chunked_prefill",
        "enable_dbo",
        "enable_eplb",
        "enable_expert_parallel",
        "enable_flashinfer_autotune",
        "enable_prefix_caching",
        "enable_sleep_mode",
        "enforce_eager",
        "expert_placement_strategy",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "language_model_only",
        "limit_mm_per_prompt",
        "linear_backend",
        "logprobs_mode",
        "long_prefill_token_threshold",
        "mamba_backend",
        "mamba_block_size",
        "mamba_cache_dtype",
        "mamba_cache_mode",
        "mamba_ssm_cache_dtype",
        "max_cudagraph_capture_size",
        "max_logprobs",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_scheduled_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "model_impl",
        "moe_backend",
        "num_gpu_blocks_override",
        "numa_bind",
        "numa_bind_cpus",
        "numa_bind_nodes",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "prefill_context_parallel_size",
        "prefix_caching_hash_algo",
        "safetensors_load_strategy",
        "scheduler_reserve_full_isl",
        "skip_tokenizer_init",
        "scheduling_policy",
        "skip_mm_profiling",
        "stream_interval",
        "tensor_parallel_size",
        "ubatch_size",
        "use_tqdm_on_load",
    )
)
# Arguments that take names of classes too: what of them is plain.
VALUES: dict[str, Sequence[Any]] = {"distributed_executor_backend": ("uni", "mp", "ray")}
TABLES = {"compilation_config": {"max_cudagraph_capture_size", "cudagraph_capture_sizes", "cudagraph_mode", "mode", "level"}}


def check_vllm_keys(arguments: Mapping[str, Any], where: str) -> None:
    """Raise EngineError for an argument that is ours, that vLLM does not know, or that takes --trust-config."""
    for key in sorted(arguments.keys() & OWNED_BY_US.keys()):
        raise EngineError(f"{where}: vllm.{key} is not yours to set. {OWNED_BY_US[key]}")
    check_plain(arguments, where, "vllm")


def check_plain(arguments: Mapping[str, Any], where: str, table: str, also: Sequence[str] = ()) -> None:
    """Raise EngineError for an argument that vLLM does not know, or that takes --trust-config; those of `also` do not."""
    if not arguments:
        return
    known = argument_names()
    for key, value in arguments.items():
        if key not in known:
            raise EngineError(f"{where}: unknown key '{table}.{key}'. {nearest(key, known)}")
        if not TRUSTING.get() and key not in also and not is_plain(key, value):
            raise EngineError(
                f"{where}: {table}.{key} = {str(value)[:60]!r} can make vLLM run code, read other files or listen for others. "
                "Where you know the file and want that, add --trust-config."
            )


def is_plain(key: str, value: Any) -> bool:
    """Whether an argument with this value sizes or schedules, and does nothing else."""
    if key in VALUES:
        return value in VALUES[key]
    if key in TABLES:
        return isinstance(value, int) or (isinstance(value, Mapping) and set(value) <= TABLES[key])
    return key in PLAIN


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known name that an unknown one is nearest to, or at all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
