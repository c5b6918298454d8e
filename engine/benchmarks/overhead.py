"""The cost of our Python beside vLLM's: a real `LLM` over an engine core that holds no model and answers at once.

Requests and answers go through vLLM's own msgpack encoding, as they do between processes on a GPU; vLLM's output processor
and detokeniser are real. A slow machine hides this cost behind its model; a GPU does not. Times are CPU seconds of this
thread, less what the answering core spends on making answers up.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.environment import describe
from engine.inference.arguments import engine_arguments
from engine.inference.replica import Replica
from engine.rollout.stages import generate_rows
from engine.runs import parquet
from engine.runs.files import ROLLOUTS
from engine.runs.schemas import ROLLOUT_SCHEMA
from engine.runs.session import Session
from engine.vllm_compat import core_client, wire_types


class AnsweringCore:
    """In place of vLLM's engine core client: every request gets `num_tokens` tokens, one a step, all requests together."""

    def __init__(self, num_tokens: int, vocabulary: int) -> None:
        self.num_tokens, self.vocabulary = num_tokens, vocabulary
        self.own_seconds = 0.0
        self._wire = wire_types()
        self._encoder = self._wire.MsgpackEncoder()
        self._requests = self._wire.MsgpackDecoder(self._wire.EngineCoreRequest)
        self._answers = self._wire.MsgpackDecoder(self._wire.EngineCoreOutputs)
        self._waiting: list[Any] = []
        self._frames: list[Any] = []

    def add_request(self, request: Any) -> None:
        frames = self._encoder.encode(request)
        with self._own():
            self._waiting.append(self._requests.decode(frames))

    def get_output(self) -> Any:
        with self._own():
            if not self._frames:
                self._frames = list(reversed([self._encoder.encode(answer) for answer in self._made()]))
            frames = self._frames.pop()
        return self._answers.decode(frames)

    def collective_rpc(self, method: str, timeout: Any = None, args: tuple[Any, ...] = (), kwargs: Any = None) -> list[Any]:
        """One rank's answer to what `engine.inference.vllm_worker` adds."""
        return [{"variant_hash": "", "sites": 1}] if method == "hotswap_open" else [{"variant_hash": args[0], "probe_error": 0.0}]

    def reset_prefix_cache(self, *ignored: Any, **also: Any) -> bool:
        return True

    def reset_mm_cache(self) -> None:
        """There is none."""

    def dp_engines_running(self) -> bool:
        return False

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def abort_requests(self, request_ids: Sequence[str]) -> None:
        """Nothing is under way between two calls."""

    def shutdown(self, timeout: float | None = None) -> None:
        """Nothing to stop."""

    def _made(self) -> Iterator[Any]:
        """Answers to everything that waits: log-probabilities of prompts where they are asked for, else tokens step by step."""
        output_type, outputs_type = self._wire.EngineCoreOutput, self._wire.EngineCoreOutputs
        length = self._wire.FinishReason.LENGTH
        requests, self._waiting = self._waiting, []
        if requests[0].sampling_params.prompt_logprobs is not None:
            for request in requests:
                table = prompt_logprobs(request.prompt_token_ids)
                output = output_type(request.request_id, [0], finish_reason=length)
                output.new_prompt_logprobs_tensors = table
                yield outputs_type(outputs=[output])
            return
        for step in range(self.num_tokens):
            last = length if step == self.num_tokens - 1 else None
            yield outputs_type(
                outputs=[
                    output_type(one.request_id, [(17 * place + 31 * step) % self.vocabulary], finish_reason=last)
                    for place, one in enumerate(requests)
                ]
            )

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.own_seconds += time.thread_time() - started


def prompt_logprobs(token_ids: Sequence[int]) -> Any:
    """A prompt's log-probabilities as a worker sends them: its own tokens', from the second on."""
    import torch

    tokens = torch.tensor(token_ids[1:], dtype=torch.int32)[:, None]
    return wire_types().LogprobsTensors(tokens, torch.full(tokens.shape, -1.5), torch.ones(len(tokens), dtype=torch.int32))


def open_replica(session: Session, core: AnsweringCore) -> Replica:
    """A replica whose `LLM` is vLLM's own, on the answering core."""
    arguments = engine_arguments(session.config, session.checkpoint.directory, has_gpu=False, window=session.window)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    with core_client(core):
        return Replica(arguments, session.base)


def bench_overhead(config: RunConfig, *, num_tokens: int, rounds: int) -> dict[str, Any]:
    """Serial milliseconds that a rollout of 500 rows adds to `LLM.generate`, and microseconds a token of vLLM's own Python."""
    session = Session(config.model_copy(update={"sampling": config.sampling.model_copy(update={"max_tokens": num_tokens})}))
    session.check_prompts()
    core = AnsweringCore(num_tokens, int(session.checkpoint.config["vocab_size"]))
    replica = open_replica(session, core)
    session.use(replica)
    prompts = session.render(session.requests, "test requests")
    with tempfile.TemporaryDirectory(prefix="refusal-overhead-") as name:
        work: dict[str, Callable[[int], None]] = {
            "plain": lambda number: _plain(replica, prompts, num_tokens),
            "ours": lambda number: _ours(session, Path(name) / str(number)),
            "likelihoods": lambda number: _likelihoods(replica, prompts, num_tokens),
        }
        seconds: dict[str, list[float]] = {part: [] for part in work}
        for number in range(rounds + 1):  # the first warms up
            for part, run in work.items():
                before, own = time.thread_time(), core.own_seconds
                run(number)
                seconds[part].append(time.thread_time() - before - (core.own_seconds - own))
    tokens = len(prompts) * num_tokens
    plain, ours, read = (statistics.median(values[1:]) for values in seconds.values())
    return {
        "serial_ms_per_500_rows": round(1000 * (ours - plain) * 500 / len(prompts), 1),
        "plain_us_per_token": round(1e6 * plain / tokens, 2),
        "likelihood_us_per_token": round(1e6 * read / (tokens + sum(map(len, prompts))), 2),
        "plain_ms": [round(1000 * value, 1) for value in seconds["plain"][1:]],
        "ours_ms": [round(1000 * value, 1) for value in seconds["ours"][1:]],
        "prompts": len(prompts),
        "max_tokens": num_tokens,
        "model": config.model.path,
        **describe(),
    }


def _plain(replica: Replica, prompts: Sequence[Sequence[int]], num_tokens: int) -> None:
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=num_tokens)
    replica.llm.generate([{"prompt_token_ids": list(ids)} for ids in prompts], sampling, use_tqdm=False)


def _ours(session: Session, folder: Path) -> None:
    folder.mkdir()
    table = parquet.ShardedTable(folder / ROLLOUTS, ROLLOUT_SCHEMA)
    generate_rows(session, session.base, session.requests, table)
    table.merge({"prompt_id": None})


def _likelihoods(replica: Replica, prompts: Sequence[Sequence[int]], num_tokens: int) -> None:
    replica.mean_logprobs(prompts, [[place % 900 + 2 for place in range(num_tokens)] for _ in prompts])
