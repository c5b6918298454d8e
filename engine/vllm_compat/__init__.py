"""vLLM's insides as far as we rely on them: private names, ids, defaults, and in `layers` a worker's layers.

An upgrade of vLLM is tried here first. Written for vLLM 0.26 to 0.33. vLLM is imported inside the functions: it takes ten
seconds.
"""

import ast
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

from engine.errors import EngineError

WORKER_EXTENSION = "engine.inference.vllm_worker.HotSwapWorker"
GIB = 2**30
# vLLM's defaults: from how many bytes of a GPU on a batch is big, the size of such a batch, and CUDA graphs up to this batch.
BIG_CARD, BIG_BATCH, CAPTURED = 70 * GIB, 1024, 512


def argument_names() -> list[str]:
    """The fields of the installed vLLM's EngineArgs, read from its source."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise EngineError("vLLM is not installed. Run bin/setup.")
    tree = ast.parse((Path(spec.origin).parent / "engine" / "arg_utils.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            fields = [
                item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
            return [name for name in fields if re.match(r"[a-z]", name)]
    raise EngineError("The installed vLLM has no EngineArgs in engine/arg_utils.py; expected vLLM 0.26 to 0.33.")


# vLLM's tables of architectures, and whether it runs them through transformers' code.
REGISTRIES = {"_TEXT_GENERATION_MODELS": False, "_MULTIMODAL_MODELS": False, "_TRANSFORMERS_SUPPORTED_MODELS": True}


def architectures() -> dict[str, bool]:
    """The architectures that the installed vLLM lists, and whether it runs them through transformers' code, from its source."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise EngineError("vLLM is not installed. Run bin/setup.")
    source = Path(spec.origin).parent / "model_executor" / "models" / "registry.py"
    found: dict[str, bool] = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        names = {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
        if names & REGISTRIES.keys() and isinstance(node, ast.Assign):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            told = REGISTRIES[(names & REGISTRIES.keys()).pop()]
            found |= {str(key.value): told for key in keys if isinstance(key, ast.Constant)}
    return found


def memory_share(settings: Mapping[str, Any]) -> float:
    """The share of a GPU that vLLM claims: the user's `gpu_memory_utilization`, else vLLM's own default."""
    from vllm.engine.arg_utils import EngineArgs

    return float(settings.get("gpu_memory_utilization", EngineArgs.gpu_memory_utilization))


def thinking_budget(start: str, end: str) -> Any:
    """vLLM's setting that lets requests bound a trace between these markers."""
    from vllm.config import ReasoningConfig

    return ReasoningConfig(reasoning_start_str=start, reasoning_end_str=end)


def adapter_ranks() -> list[int]:
    """The ranks of adapters that vLLM serves, ascending."""
    from vllm.config.lora import MaxLoRARanks

    return sorted(get_args(MaxLoRARanks))


def device_bytes(gpu: int = 0) -> int:
    """Total bytes of a GPU."""
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory(gpu))


def on_cpu() -> bool:
    """Whether this vLLM runs on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


@contextlib.contextmanager
def transformers_unchanged() -> Iterator[None]:
    """While it is entered, transformers' models can be made although an engine in this process runs one of their classes.

    vLLM wraps such a class for compiling, and every model of it asks for vLLM's configuration when it is made. This one says
    that nothing is compiled.
    """
    if "vllm.compilation.decorators" not in sys.modules:
        yield
        return
    from transformers import PretrainedConfig
    from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config

    config: Any = VllmConfig(compilation_config=CompilationConfig(mode=0))
    config.model_config = SimpleNamespace(hf_config=PretrainedConfig())  # the wrapper asks it for rotary scaling
    with set_current_vllm_config(config):
        yield


# --- engines -----------------------------------------------------------------------------------------------------------


def start_engine(arguments: Mapping[str, Any], purpose: str = "") -> Any:
    """A vllm.LLM. Raises EngineError with vLLM's own message where it does not start; `purpose` says what it was for."""
    from vllm import LLM

    try:
        return LLM(**arguments)
    except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise EngineError(f"vLLM did not start{purpose}: {error or type(error).__name__}") from error


def stop_engine(llm: Any) -> None:
    """Stop an engine and its processes; its memory is free when the caller drops `llm`."""
    llm.llm_engine.engine_core.shutdown()


def stream(llm: Any, prompts: Sequence[Any], parameters: Any, *, together: bool = False) -> Iterator[tuple[int, Any]]:
    """Each prompt's place and vLLM's finished output, as they finish. What the caller leaves unread is aborted.

    `together` has an engine in a process of its own wait for the last prompt before it starts; see `_paused`.
    """
    engine = llm.llm_engine
    with _paused(llm) if together else contextlib.nullcontext():
        pending = {name: place for place, name in enumerate(llm.enqueue(prompts, parameters, use_tqdm=False))}
    # vLLM's own ids are NUMBER or NUMBER-RANDOM; outputs carry the number.
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


@contextlib.contextmanager
def _paused(llm: Any) -> Iterator[None]:
    """Requests are taken and none is scheduled; without effect in this process, where nothing runs between calls."""
    if not runs_elsewhere():
        yield
        return
    llm.sleep(level=0, mode="keep")
    try:
        yield
    finally:
        llm.wake_up(tags=["scheduling"])


def worker_here(llm: Any) -> Any:
    """The worker of an engine of one rank that runs in this process: tests look at its layers."""
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker


def runs_elsewhere() -> bool:
    """Whether vLLM puts its engine in a process of its own, as it does by default on a GPU."""
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"


def engine_failures() -> tuple[type[Exception], ...]:
    """The exceptions that vLLM raises when an engine has died or broken off."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    return (EngineDeadError, EngineGenerateError)


@contextlib.contextmanager
def engine_death() -> Iterator[None]:
    """Raise EngineError where an engine has died, in a process of its own or in this one."""
    try:
        yield
    except RuntimeError as error:
        raise _died(error) from error
    except engine_failures() as error:
        raise _died(error) from error


def _died(error: Exception) -> EngineError:
    return EngineError(f"The engine died ({error}). Its own lines above say why; run again to continue.")


def served_engine(application: Any) -> Any:
    """The engine behind vLLM's own server, of its ASGI application."""
    return application.state.engine_client


def weight_digests(llm: Any) -> dict[str, str] | None:
    """vLLM's digest of every parameter, by rank and name; None on a CPU, where vLLM packs weights away, and where it has none."""
    from vllm.v1.worker.gpu_worker import Worker

    if on_cpu() or not hasattr(Worker, "compute_weight_checksums"):
        return None
    return {name: digest for ranks in llm.collective_rpc("compute_weight_checksums") for name, digest in ranks.items()}


def last_logprobs(table: Any, tokens: Sequence[int]) -> list[float]:
    """The log-probabilities of a sequence's last tokens, of vLLM's flat table: each position lists its own token first.

    Raises EngineError where the table is of other tokens.
    """
    first = [table.start_indices[place] for place in range(-len(tokens), 0)]
    if [table.token_ids[place] for place in first] != list(tokens):
        raise EngineError("vLLM's log-probabilities are of other tokens than the response's.")
    return [table.logprobs[place] for place in first]


def wire_types() -> SimpleNamespace:
    """The types that pass between vLLM's front end and its engine core, with their coders: `bin/bench-overhead` is a core."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    return SimpleNamespace(
        EngineCoreOutput=EngineCoreOutput,
        EngineCoreOutputs=EngineCoreOutputs,
        EngineCoreRequest=EngineCoreRequest,
        FinishReason=FinishReason,
        LogprobsTensors=LogprobsTensors,
        MsgpackDecoder=MsgpackDecoder,
        MsgpackEncoder=MsgpackEncoder,
    )


@contextlib.contextmanager
def core_client(core: Any) -> Iterator[None]:
    """An engine that starts here gets `core` for its engine core's client."""
    from vllm.v1.engine.core_client import EngineCoreClient

    real = EngineCoreClient.make_client
    EngineCoreClient.make_client = staticmethod(lambda **ignored: core)
    try:
        yield
    finally:
        EngineCoreClient.make_client = real
