"""One vLLM engine on one model: generates for the base and for every variant, which it takes up by hot swap.

Prompts go in as token ids. After a swap that failed it refuses to generate until one succeeds.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from engine.config import RunConfig, SamplingConfig
from engine.errors import EngineError
from engine.variants import Variant

GIB = 2**30


@dataclass(frozen=True)
class Generation:
    """One finished response; `index` is the prompt's place in the call, `finish_reason` vLLM's (stop, length)."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str


def engine_arguments(config: RunConfig, model_dir: Path, *, has_gpu: bool) -> dict[str, Any]:
    """vLLM's arguments: ours for the hardware, then those of the configuration's [vllm] table."""
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": config.model.dtype,
        "seed": config.sampling.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": "engine.worker.HotSwapWorker",
    }
    arguments |= hardware_arguments(has_gpu=has_gpu) | (room_for_swaps(config, model_dir) if has_gpu else {}) | config.vllm
    if arguments.get("pipeline_parallel_size", 1) != 1:
        raise EngineError("A hot swap does not take pipeline parallelism; use vllm.tensor_parallel_size instead.")
    return arguments


def hardware_arguments(*, has_gpu: bool) -> dict[str, Any]:
    """What an engine needs on a machine without a GPU."""
    if has_gpu:
        return {}
    # Eager: compiling gains 10 % and costs over a minute. One process: the start takes seconds, not half a minute.
    return {"enforce_eager": True, "distributed_executor_backend": "uni", "kv_cache_memory_bytes": 2 * GIB}


def room_for_swaps(config: RunConfig, model_dir: Path) -> dict[str, float]:
    """vLLM's share of a GPU, less what the hot swap keeps there: the base's weights of the layers that it exchanges."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    checkpoint = open_checkpoint(model_dir)
    entries = [checkpoint.tensors[tensor.name] for tensor in plan_edit(checkpoint).edited]
    kept = sum(entry.end - entry.begin for entry in entries) // int(config.vllm.get("tensor_parallel_size", 1))
    total = current_platform.get_device_total_memory()
    return {"gpu_memory_utilization": round(EngineArgs.gpu_memory_utilization - kept / total, 3)}


def set_environment(*, has_gpu: bool) -> None:
    """What vLLM and torch read at import; anything the user has set stays. VLLM_LOGGING_LEVEL=INFO shows vLLM's log."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    if not has_gpu:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


class Replica:
    """An engine; `current` is the variant it holds, None before the first swap and after a failed one.

    Raises EngineError for an engine that does not start, with vLLM's own message.
    """

    def __init__(self, arguments: dict[str, Any], base: Variant) -> None:
        from vllm import LLM

        self.arguments = arguments
        self.base = base
        try:
            self.llm = LLM(**arguments)
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"vLLM did not start: {error}") from error
        self.num_sites = int(self.llm.collective_rpc("hotswap_open", args=(arguments["model"],))[0])
        self.current: Variant | None = None  # the first swap, to the base too, loads and probes

    def swap(self, variant: Variant) -> float:
        """Take up a variant; returns the largest probe error over layers and workers.

        Raises EngineError for a variant of another base, and SwapFailed where the probe finds other weights.
        """
        if variant.base_hash != self.base.base_hash:
            raise EngineError(f"Variant {variant.name} was made from another base than the model in this engine.")
        if variant.plan.scope.embeddings or variant.plan.scope.biases:
            raise EngineError("Embeddings and biases are not swapped in a running engine; write the variant with bin/edit.")
        if self.current is not None and self.current.hash == variant.hash:
            return 0.0
        self.current = None
        errors = self._apply(variant)
        self.forget_prompts()  # keys and values of the old weights
        self.current = variant
        return max(errors)

    def forget_prompts(self) -> None:
        """Empty the prefix cache, so that what comes next does not depend on what came before."""
        self.llm.reset_prefix_cache()

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> Iterator[Generation]:
        """Responses of the current variant, each as it finishes (not in order)."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed if sampling.temperature > 0 else None,
        )
        for index, output in self.outputs(prompts, parameters):
            response = output.outputs[0]
            yield Generation(index, response.text, list(response.token_ids), str(response.finish_reason))

    def mean_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        on_row: Callable[[], None] = lambda: None,
    ) -> list[float | None]:
        """Teacher-forced mean log-probability (nats a token) of each response after its prompt; None for an empty one."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        scored: list[float | None] = [None] * len(prompts)
        filled = [index for index, response in enumerate(responses) if response]
        sequences = [[*prompts[index], *responses[index]] for index in filled]
        for place, output in self.outputs(sequences, parameters):
            index = filled[place]
            entries = output.prompt_logprobs[len(prompts[index]) :]
            values = [entry[token].logprob for entry, token in zip(entries, responses[index], strict=True)]
            scored[index] = sum(values) / len(values)
            on_row()
        return scored

    def outputs(self, sequences: Sequence[Sequence[int]], parameters: Any) -> Iterator[tuple[int, Any]]:
        """Each sequence's place and vLLM's output, as they finish; `parameters` are SamplingParams, one for all or one each."""
        if self.current is None:
            raise EngineError("No hot swap has succeeded, so the engine may hold mixed weights. Swap before generating.")
        engine = self.llm.llm_engine
        prompts = [{"prompt_token_ids": list(token_ids)} for token_ids in sequences]
        # vLLM's own ids are NUMBER or NUMBER-RANDOM; outputs carry the number.
        pending = {name: place for place, name in enumerate(self.llm.enqueue(prompts, parameters, use_tqdm=False))}
        places = {name.split("-")[0]: place for name, place in pending.items()}
        finished: set[int] = set()
        try:
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        finished.add(places[output.request_id])
                        yield places[output.request_id], output
        finally:
            if abandoned := [name for name, place in pending.items() if place not in finished]:
                engine.abort_request(abandoned, internal=True)

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm

    def _apply(self, variant: Variant) -> list[float]:
        if variant.edit is None:
            return list(self.llm.collective_rpc("hotswap_apply", args=(None, {}, False)))
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory(prefix="refusal-basis-") as folder:
            file = str(Path(folder) / "basis.safetensors")
            save_file({"basis": variant.edit.basis_HK.contiguous()}, file)
            return list(self.llm.collective_rpc("hotswap_apply", args=(file, variant.alphas, variant.edit.keep_norms)))
