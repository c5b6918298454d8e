"""vLLM's engine arguments: ours for the hardware, then those of a configuration's [vllm] table."""

from pathlib import Path
from typing import Any

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.plan import EditPlan, Scope, plan_edit
from engine.configs.conditions import conditions_of
from engine.configs.judges import load_judge
from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.inference.arithmetic import arithmetic_of
from engine.models.thinking import Thinking
from engine.models.tokenizer import open_renderer
from engine.vllm_compat import BIG_BATCH, BIG_CARD, CAPTURED, GIB, WORKER_EXTENSION, device_bytes, memory_share, thinking_budget

STEP_TOKENS = 4096  # vLLM's own default of a step on a CPU
SMALL_BLOCK = 32  # tokens of the prefix cache on a CPU: its smallest. By default 128, more than most prompts have
OPENED_AS = {"load_format": "safetensors", "config_format": "hf"}
"""vLLM opens the files that transformers opens: by itself it prefers consolidated.safetensors and params.json."""


def engine_arguments(
    config: RunConfig, model_dir: Path, *, has_gpu: bool, window: int | None = None, width: int | None = None
) -> dict[str, Any]:
    """vLLM's arguments: ours for the hardware of this process, then those of the configuration's [vllm] table.

    `window` is the tokens that a request takes at most, the model's own window where it is None; `width` the GPUs of this
    engine where the configuration does not say. Call it where the engine runs: a driver on another machine has another card,
    or none.
    """
    if width is not None:
        config = config.model_copy(update={"vllm": {"tensor_parallel_size": width, **config.vllm}})
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": arithmetic_of(config.model.dtype, open_checkpoint(model_dir)).dtype,
        **OPENED_AS,
        "seed": config.sampling.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": WORKER_EXTENSION,
    }
    arguments |= {} if window is None else {"max_model_len": window}
    arguments |= hardware_arguments(has_gpu=has_gpu)
    asked = [condition.applied(config).sampling for condition in conditions_of(config)]
    arguments |= whole_prompts(window) if not has_gpu and any(one.temperature for one in asked) else {}
    arguments |= {"block_size": SMALL_BLOCK} if not has_gpu and reads_views(config) else {}
    arguments |= config.vllm
    arguments |= bounded_traces(config, model_dir) if any(one.thinking_tokens is not None for one in asked) else {}
    arguments |= gpu_arguments(config, model_dir) if has_gpu else {}
    if arguments.get("pipeline_parallel_size", 1) != 1:
        raise EngineError("A hot swap does not take pipeline parallelism; use vllm.tensor_parallel_size instead.")
    return arguments


def reads_views(config: RunConfig) -> bool:
    """Whether the configured judge has the base read the beginnings of responses, which shares their prompts."""
    file = load_judge(config.judge.name)
    return file is not None and file.fitted


def bounded_traces(config: RunConfig, model_dir: Path) -> dict[str, Any]:
    """Arguments that let requests bound what a model thinks before its answer (sampling.thinking_tokens)."""
    renderer = open_renderer(model_dir, config.model)
    thinking = Thinking(renderer.tokenizer, renderer.template, str(config.model.reasoning))
    return {"reasoning_config": thinking_budget(thinking.start, thinking.end)}


def hardware_arguments(*, has_gpu: bool) -> dict[str, Any]:
    """vLLM's arguments for a machine without a GPU; none where there is one."""
    if has_gpu:
        return {}
    # Eager: compiling gains 10 % and costs over a minute. One process: the start takes seconds, not half a minute.
    return {"enforce_eager": True, "distributed_executor_backend": "uni", "kv_cache_memory_bytes": 2 * GIB}


def whole_prompts(window: int | None) -> dict[str, Any]:
    """Arguments that have a prompt computed in one step, for sampling on a CPU.

    Of a prompt in parts vLLM draws a token too early and turns the request's generator back, which a CPU's generator cannot.
    """
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(window or 0, STEP_TOKENS)}


def gpu_arguments(config: RunConfig, model_dir: Path) -> dict[str, Any]:
    """vLLM's arguments for the GPU that this process sees: its share of it, and CUDA graphs for the whole batch."""
    total = device_bytes()
    return share_beside_swaps(config, model_dir, total) | graphs_for_batch(config, total)


def share_beside_swaps(config: RunConfig, model_dir: Path, total: int) -> dict[str, float]:
    """vLLM's share of a GPU of `total` bytes, less what the hot swap keeps there: the base's weights that it exchanges.

    The share is the user's `vllm.gpu_memory_utilization`, else vLLM's own; nothing where the cache has a size of its own.
    """
    if "kv_cache_memory_bytes" in config.vllm or config.edit.form == "runtime":  # what edits nothing keeps nothing
        return {}
    checkpoint = open_checkpoint(model_dir)
    plan = plan_edit(checkpoint, Scope(embeddings=config.edit.embeddings, biases=config.edit.biases))
    kept = kept_bytes(checkpoint, plan) // int(config.vllm.get("tensor_parallel_size", 1))
    share = memory_share(config.vllm)
    return {"gpu_memory_utilization": round(share - kept / total, 3)}


def kept_bytes(checkpoint: Checkpoint, plan: EditPlan) -> int:
    """Bytes that a hot swap keeps beside the model: the base's tensors that it exchanges, as stored, experts included."""
    entries = [checkpoint.tensors[tensor.name] for tensor in plan.edited]
    return sum(entry.end - entry.begin for entry in entries)


def graphs_for_batch(config: RunConfig, total: int) -> dict[str, Any]:
    """CUDA graphs up to the number of sequences that run at once: vLLM captures up to 512, and beyond that runs without.

    On a GPU of `total` bytes vLLM runs 1,024 sequences at once from 70 GiB on, and 256 below.
    """
    given = config.vllm.get("compilation_config", {})
    batch = int(config.vllm.get("max_num_seqs", BIG_BATCH if total >= BIG_CARD else 0))
    if batch <= CAPTURED or config.vllm.get("enforce_eager") or not isinstance(given, dict):
        return {}
    if given.keys() & {"max_cudagraph_capture_size", "cudagraph_capture_sizes"}:
        return {}
    return {"compilation_config": {**given, "max_cudagraph_capture_size": batch}}
