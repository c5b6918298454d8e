"""One vLLM engine on one model: generates for the base and for every variant, which it takes up by hot swap.

Prompts go in as token ids. After a swap that failed it refuses to generate until one succeeds.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.plan import plan_edit
from engine.arithmetic import arithmetic_of
from engine.config import RunConfig, SamplingConfig
from engine.errors import EngineError, SwapFailed
from engine.variants import Variant

GIB = 2**30
BIG_CARD, BIG_BATCH, CAPTURED = 70 * GIB, 1024, 512  # vLLM's defaults: bytes from which a batch is big, its size, graphs up to
SEED_BYTES = 7


@dataclass(frozen=True)
class Generation:
    """One finished response; `index` is the prompt's place in the call, `finish_reason` vLLM's (stop, length).

    `mean_logprob` is the response's mean log-probability (nats a token) under the model that wrote it, where it was asked for.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str
    mean_logprob: float | None = None


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
        "seed": config.sampling.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": "engine.worker.HotSwapWorker",
    }
    arguments |= {} if window is None else {"max_model_len": window}
    arguments |= hardware_arguments(has_gpu=has_gpu) | config.vllm
    arguments |= gpu_arguments(config, model_dir) if has_gpu else {}
    if arguments.get("pipeline_parallel_size", 1) != 1:
        raise EngineError("A hot swap does not take pipeline parallelism; use vllm.tensor_parallel_size instead.")
    return arguments


def hardware_arguments(*, has_gpu: bool) -> dict[str, Any]:
    """What an engine needs on a machine without a GPU."""
    if has_gpu:
        return {}
    # Eager: compiling gains 10 % and costs over a minute. One process: the start takes seconds, not half a minute.
    return {"enforce_eager": True, "distributed_executor_backend": "uni", "kv_cache_memory_bytes": 2 * GIB}


def gpu_arguments(config: RunConfig, model_dir: Path) -> dict[str, Any]:
    """What follows from the GPU that this process sees: vLLM's share of it, and CUDA graphs for the whole batch."""
    from vllm.platforms import current_platform

    total = current_platform.get_device_total_memory()
    return share_beside_swaps(config, model_dir, total) | graphs_for_batch(config, total)


def share_beside_swaps(config: RunConfig, model_dir: Path, total: int) -> dict[str, float]:
    """vLLM's share of a GPU of `total` bytes, less what the hot swap keeps there: the base's weights that it exchanges.

    The share is the user's `vllm.gpu_memory_utilization`, else vLLM's own; nothing where the cache has a size of its own.
    """
    from vllm.engine.arg_utils import EngineArgs

    if "kv_cache_memory_bytes" in config.vllm:
        return {}
    checkpoint = open_checkpoint(model_dir)
    entries = [checkpoint.tensors[tensor.name] for tensor in plan_edit(checkpoint).edited]
    kept = sum(entry.end - entry.begin for entry in entries) // int(config.vllm.get("tensor_parallel_size", 1))
    share = float(config.vllm.get("gpu_memory_utilization", EngineArgs.gpu_memory_utilization))
    return {"gpu_memory_utilization": round(share - kept / total, 3)}


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


def prompt_seed(seed: int, token_ids: Sequence[int]) -> int:
    """A seed of each prompt's own, the same for base and variants.

    With one seed for all, prompts of equal length would draw the same noise, and responses would not be independent.
    """
    digest = hashlib.sha256(f"{seed}:{','.join(map(str, token_ids))}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def checked_answers(answers: Sequence[dict[str, Any]], variant_hash: str) -> list[dict[str, Any]]:
    """Every rank's answer to a call about a variant.

    Raises EngineError for an error, SwapFailed where the probe found other weights, and for the answer to another call.
    """
    for rank, answer in enumerate(answers):
        if answer["variant_hash"] != variant_hash:
            raise SwapFailed(f"Rank {rank} answered for variant {answer['variant_hash']}, not for {variant_hash}.")
        if "error" in answer:
            kind = SwapFailed if answer["error"] == SwapFailed.__name__ else EngineError
            where = f"rank {rank}: " if len(answers) > 1 else ""
            own = answer["error"] in (SwapFailed.__name__, EngineError.__name__, EditError.__name__)
            raise kind(f"{where}{answer['message'] if own else answer['error'] + ': ' + answer['message']}")
    return list(answers)


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
        except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
            raise EngineError(f"vLLM did not start: {error or type(error).__name__}") from error
        answers = self.llm.collective_rpc("hotswap_open", args=(arguments["model"],))
        self.num_sites = int(checked_answers(answers, "")[0]["sites"])
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
        with engine_death():
            answers = self.llm.collective_rpc("hotswap_apply", args=arguments_of(variant))
        worst = max(float(answer["probe_error"]) for answer in checked_answers(answers, variant.hash))
        self.forget_prompts()  # keys and values of the old weights
        self.current = variant
        return worst

    def forget_prompts(self) -> None:
        """Empty the prefix cache, so that what comes next does not depend on what came before.

        Raises EngineError where a request holds a part of it.
        """
        if self.llm.reset_prefix_cache() is False:
            raise EngineError("The engine's prefix cache could not be emptied: a request is still under way.")

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, together: bool = False, logprobs: bool = False
    ) -> Iterator[Generation]:
        """Responses of the current variant, each as it finishes (not in order); `together` as for `outputs`.

        `logprobs` has each tell its own mean log-probability, as `mean_logprobs` would compute it anew.
        """
        parameters = sampling_parameters(prompts, sampling, logprobs=logprobs)
        for index, output in self.outputs(prompts, parameters, together=together):
            response = output.outputs[0]
            total, count = response.cumulative_logprob, len(response.token_ids)
            mean = float(total) / count if logprobs and count else None
            yield Generation(index, response.text, list(response.token_ids), str(response.finish_reason), mean)

    def mean_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        on_row: Callable[[], None] = lambda: None,
    ) -> list[float | None]:
        """Teacher-forced mean log-probability (nats a token) of each response after its prompt; None for an empty one."""
        from vllm import SamplingParams

        # One number a token, in flat lists: with text and a table a token this costs nine times as much in this process.
        parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
        scored: list[float | None] = [None] * len(prompts)
        filled = [index for index, response in enumerate(responses) if response]
        sequences = [[*prompts[index], *responses[index]] for index in filled]
        for place, output in self.outputs(sequences, parameters):
            index = filled[place]
            values = logprobs_of(output.prompt_logprobs, responses[index])
            scored[index] = sum(values) / len(values)
            on_row()
        return scored

    def outputs(
        self, sequences: Sequence[Sequence[int]], parameters: Any, *, together: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Each sequence's place and vLLM's output, as they finish; `parameters` are SamplingParams, one for all or one each.

        `together` has an engine in a process of its own wait for the last sequence before it starts, as one in this process
        does: equal calls then make equal batches.
        """
        if self.current is None:
            raise EngineError("No hot swap has succeeded, so the engine may hold mixed weights. Swap before generating.")
        engine = self.llm.llm_engine
        prompts = [{"prompt_token_ids": list(token_ids)} for token_ids in sequences]
        # vLLM's own ids are NUMBER or NUMBER-RANDOM; outputs carry the number.
        with self._paused() if together else contextlib.nullcontext():
            pending = {name: place for place, name in enumerate(self.llm.enqueue(prompts, parameters, use_tqdm=False))}
        places = {name.split("-")[0]: place for name, place in pending.items()}
        finished: set[int] = set()
        try:
            while engine.has_unfinished_requests():
                with engine_death():
                    outputs = engine.step()
                for output in outputs:
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

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """Requests are taken and none is scheduled; without effect in this process, where nothing runs between calls."""
        if not runs_elsewhere():
            yield
            return
        self.llm.sleep(level=0, mode="keep")
        try:
            yield
        finally:
            self.llm.wake_up(tags=["scheduling"])


def weight_digests(llm: Any) -> dict[str, str] | None:
    """vLLM's digest of every parameter, by rank and name; None on a CPU, where vLLM packs weights away, and where it has none."""
    from vllm.platforms import current_platform
    from vllm.v1.worker.gpu_worker import Worker

    if current_platform.is_cpu() or not hasattr(Worker, "compute_weight_checksums"):
        return None
    return {name: digest for ranks in llm.collective_rpc("compute_weight_checksums") for name, digest in ranks.items()}


@contextlib.contextmanager
def engine_death() -> Iterator[None]:
    """Raise EngineError where an engine in a process of its own has died."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except (EngineDeadError, EngineGenerateError) as error:
        raise EngineError(f"The engine died ({error}). Its own lines above say why; run again to continue.") from error


def runs_elsewhere() -> bool:
    """Whether vLLM puts its engine in a process of its own, as it does by default on a GPU."""
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"


def arguments_of(variant: Variant) -> tuple[str, bytes | None, dict[str, float], bool]:
    """A variant as `hotswap_apply` takes it: its hash, its basis as the bytes of a safetensors file, alphas, keep_norms."""
    if variant.edit is None:
        return variant.hash, None, {}, False
    from safetensors.torch import save

    return variant.hash, save({"basis": variant.edit.basis_HK.contiguous()}), variant.alphas, variant.edit.keep_norms


def sampling_parameters(prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, logprobs: bool = False) -> Any:
    """vLLM's SamplingParams: one for all where it is greedy, else one each, with the prompt's own seed."""
    from vllm import SamplingParams

    common: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    if logprobs:  # of the token that is taken, before temperature and top_p
        common |= {"logprobs": 0, "flat_logprobs": True}
    if sampling.temperature == 0:
        return SamplingParams(**common)
    return [SamplingParams(**common, seed=prompt_seed(sampling.seed, prompt)) for prompt in prompts]


def logprobs_of(prompt_logprobs: Any, response: Sequence[int]) -> list[float]:
    """The log-probabilities of a sequence's last tokens, of vLLM's flat table: each position lists its own token first.

    Raises EngineError where the table is of other tokens.
    """
    first = [prompt_logprobs.start_indices[place] for place in range(-len(response), 0)]
    if [prompt_logprobs.token_ids[place] for place in first] != list(response):
        raise EngineError("vLLM's log-probabilities are of other tokens than the response's.")
    return [prompt_logprobs.logprobs[place] for place in first]
