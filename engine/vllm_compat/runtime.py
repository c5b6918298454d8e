"""What interventions at run time need of vLLM: its worker class, where a pass's requests get their order, blocks and writers.

Read in vLLM 0.26 and 0.32, both of its model runners; run with 0.32 on a CPU. vLLM is imported inside the functions.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import EngineError
from engine.vllm_compat import on_cpu
from engine.vllm_compat.layers import module_of

RUNTIME_WORKER = "engine.runtime.worker.RuntimeWorker"
SETTINGS = "refusal_runtime"  # our key in vLLM's additional_config, which is a part of its compile cache's key
BLOCK_LISTS = ("layers", "h", "blocks")


@dataclass
class NewRequest:
    """A request that a worker hears of for the first time: its extra arguments, and the tokens of its prompt."""

    extra_args: dict[str, Any]
    prompt_length: int


@dataclass
class Step:
    """What vLLM's scheduler tells a worker before a pass; `computed` are each request's tokens of earlier passes."""

    finished: set[str]
    new: dict[str, NewRequest] = field(default_factory=dict)
    computed: dict[str, int] = field(default_factory=dict)


def platform_worker() -> Any:
    """vLLM's worker class for this machine."""
    if on_cpu():
        from vllm.v1.worker.cpu_worker import CPUWorker

        return CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    return Worker


def runtime_settings(worker: Any) -> dict[str, Any]:
    """Our settings, which an engine was started with."""
    return dict(worker.vllm_config.additional_config[SETTINGS])


def most_tokens(worker: Any) -> int:
    """Tokens of a pass at most, the padding of CUDA graphs included."""
    captured = worker.vllm_config.compilation_config.max_cudagraph_capture_size or 0
    return max(int(worker.vllm_config.scheduler_config.max_num_batched_tokens), int(captured))


def most_requests(worker: Any) -> int:
    """Requests of a pass at most."""
    return int(worker.vllm_config.scheduler_config.max_num_seqs)


def sizes(owner: Any) -> tuple[int, int]:
    """The decoder blocks of the model of a worker or a vllm.LLM, and its hidden size."""
    config = owner.model_config
    return int(config.hf_text_config.num_hidden_layers), int(config.get_hidden_size())


def model_folder(worker: Any) -> str:
    """The checkpoint that a worker has loaded."""
    return str(worker.vllm_config.model_config.model)


def check_parallelism(worker: Any) -> None:
    """Raise EngineError where vLLM splits a pass's tokens, or the blocks, over ranks or in time: slots go by token."""
    parallel = worker.vllm_config.parallel_config
    ways = {
        "pipeline_parallel_size": parallel.pipeline_parallel_size > 1,
        "prefill_context_parallel_size": getattr(parallel, "prefill_context_parallel_size", 1) > 1,
        "enable_dbo": bool(getattr(parallel, "use_ubatching", parallel.enable_dbo)),
    }
    if found := [name for name, is_on in ways.items() if is_on]:
        raise EngineError(f"Interventions at run time do not go with vllm.{found[0]}. Leave it out.")


def step_of(scheduler_output: Any) -> Step:
    """The scheduler's word before a pass, of either runner."""
    new = {
        one.req_id: NewRequest(dict(getattr(one.sampling_params, "extra_args", None) or {}), len(one.prompt_token_ids or ()))
        for one in scheduler_output.scheduled_new_reqs
    }
    cached = scheduler_output.scheduled_cached_reqs
    computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    computed |= {one.req_id: one.num_computed_tokens for one in scheduler_output.scheduled_new_reqs}
    return Step(set(scheduler_output.finished_req_ids), new, computed)


def before_each_pass(worker: Any, tell: Callable[[Sequence[str], Sequence[int]], None]) -> None:
    """Have a worker's runner call `tell` before each pass: its requests in the order of their tokens, and their numbers."""
    runner = worker.model_runner
    second = hasattr(runner, "prepare_inputs")
    name = "prepare_inputs" if second else "_prepare_inputs"
    prepare = getattr(runner, name)

    def prepared(*args: Any, **kwargs: Any) -> Any:
        found = prepare(*args, **kwargs)
        if second:
            tell(found.req_ids, found.num_scheduled_tokens.tolist())
        else:
            scheduled = (args[0] if args else kwargs["scheduler_output"]).num_scheduled_tokens
            names = runner.input_batch.req_ids
            tell(names, [scheduled[one] for one in names])
        return found

    setattr(runner, name, prepared)


def decoder_blocks(model: Any, num_blocks: int) -> Any:
    """The list of a model's decoder blocks. Raises EngineError where there is not exactly one of that length."""
    from torch import nn

    found = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in BLOCK_LISTS and isinstance(module, nn.ModuleList) and len(module) == num_blocks
        if not any(part in name for part in ("vision", "visual", "audio"))
    ]
    if len(found) != 1:
        raise EngineError(f"{len(found)} lists of {num_blocks} decoder blocks in vLLM's {type(model).__name__}; expected one.")
    return found[0]


def entering(block: Any) -> tuple[int, int | None]:
    """Places of the stream in a block's arguments: of hidden_states, and of the residual that is added to it, if any.

    Some blocks take a residual and never read it: hidden_states is the whole stream there. Raises EngineError for a block
    without hidden_states.
    """
    forward = type(block).forward
    names = list(inspect.signature(forward).parameters)[1:]
    if "hidden_states" not in names:
        raise EngineError(f"vLLM's {type(block).__name__} takes no hidden_states; the stream that enters it is not known.")
    added = "residual" in names and reads_first(textwrap.dedent(inspect.getsource(forward)), "residual")
    return names.index("hidden_states"), names.index("residual") if added else None


def reads_first(source: str, name: str) -> bool:
    """Whether a function's code reads a name before it gives it another value."""

    class Uses(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: list[type[ast.expr_context]] = []

        def visit_Assign(self, node: ast.Assign) -> None:  # the value is read before the targets are written
            for part in (node.value, *node.targets):
                self.visit(part)

        def visit_Name(self, node: ast.Name) -> None:
            if node.id == name:
                self.found.append(type(node.ctx))

    uses = Uses()
    uses.visit(ast.parse(source))
    return bool(uses.found) and uses.found[0] is ast.Load


def writer(model: Any, tensor: str) -> Any:
    """The module whose output is what a checkpoint's tensor writes: a projection, a norm, or the whole block of experts.

    Raises EngineError for one whose output is not yet summed over ranks.
    """
    module = module_of(model, tensor)
    if getattr(module, "tp_size", 1) > 1 and getattr(module, "reduce_results", True) is False:
        raise EngineError(f"vLLM sums {tensor}'s output over ranks later, so its writes are not known. Use site inputs.")
    return module
