"""The cost of interventions at run time: one variant, 64 mixed and none, against plain `LLM.generate`, swaps and hooks.

Every run makes the same number of tokens, ends of texts being ignored, so times compare. In eager mode the operators are
taken away and put back in one engine, and ways take turns. With compiled graphs plain vLLM has engines of its own, before and
after. Beside the wall's, ratios of this process's CPU time, and on a CPU the operator's own share of the wall's time: other
processes on the cores disturb a share least.
"""
# K = rows, H = hidden size

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from editing.projection import Edit, orthonormal_basis
from engine.benchmarks.adapters import adapter_rate
from engine.benchmarks.plain import plain_engine
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe, has_gpu, set_environment
from engine.inference.arguments import engine_arguments
from engine.inference.steerable import SteerableReplica, steerable_arguments, steered
from engine.models.variant import Variant
from engine.rollout.directions import transformers_model
from engine.runs.session import Session
from engine.runtime.requests import Asked
from extraction.generate import greedy
from extraction.intervention import stream_ablation

PLAIN, ONE, MIXED, NONE = "plain", "one variant", "64 mixed", "slot zero"
NUM_MIXED = 64
HOOKED = 16  # prompts of the hooks, which are slow


@dataclass(frozen=True)
class Seconds:
    """A run's wall time, this process's CPU time, and the share of the wall's in the operator, where it is timed."""

    wall: float
    cpu: float
    operator: float | None = None


def bench_runtime(config: RunConfig, rounds: int, site: str, *, beside: bool) -> dict[str, Any]:
    """Rates of each way over `rounds` rounds, and plain's median time over theirs. beside: swaps, adapters and hooks too."""
    session = Session(config)
    prompts = session.render(session.requests, "test requests")
    arguments = engine_arguments(config, session.checkpoint.directory, has_gpu=has_gpu(), window=session.window)
    times = measure(arguments, prompts, config.sampling.max_tokens, rounds, site)
    tokens = len(prompts) * config.sampling.max_tokens
    steered_rate = tokens / statistics.median(one.wall for one in times[ONE])
    found: dict[str, Any] = {
        **ratios({way: [one.wall for one in runs] for way, runs in times.items()}),
        "cpu_time": ratios({way: [one.cpu for one in runs] for way, runs in times.items()}),
        "tokens_per_second": {way: [round(tokens / one.wall, 1) for one in runs] for way, runs in times.items()},
    }
    if times[ONE][0].operator is not None:
        shares = {way: statistics.median(one.operator or 0.0 for one in runs) for way, runs in times.items() if way != PLAIN}
        found |= {"operator_share": {way: round(share, 4) for way, share in shares.items()}}
    if beside:
        swapped = swap_rate(session, prompts)
        adapted = adapter_rate(session, arguments, prompts, mixed_edits(session), config.sampling.max_tokens)
        hooked = hook_rate(session, prompts[:HOOKED])
        found |= {"swaps_tokens_per_second": round(swapped, 1), "adapters_tokens_per_second": round(adapted, 1)}
        found |= {"hooks_tokens_per_second": round(hooked, 1)}
        found |= {"speedup_over_hooks": round(steered_rate / hooked, 2)}
    session.close()
    if has_gpu():
        from engine.benchmarks.kernel import kernel_times

        found |= {"kernel": kernel_times()}
    told = {"site": site, "prompts": len(prompts), "max_tokens": config.sampling.max_tokens, "model": config.model.path}
    return found | told | {"eager": bool(arguments.get("enforce_eager")), "dtype": arguments["dtype"], **describe()}


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Plain's seconds over each way's: the median over rounds, or of runs that had rounds of their own the medians'."""
    names = {ONE: "ratio_to_plain", MIXED: "ratio_to_plain_64_mixed", NONE: "ratio_slot_zero"}
    return {name: round(_ratio(seconds[PLAIN], seconds[way]), 4) for way, name in names.items()}


def _ratio(plain: Sequence[float], own: Sequence[float]) -> float:
    if len(plain) == len(own):
        return statistics.median(one / other for one, other in zip(plain, own, strict=True))
    return statistics.median(plain) / statistics.median(own)


def measure(
    arguments: dict[str, Any], prompts: Sequence[list[int]], max_tokens: int, rounds: int, site: str
) -> dict[str, list[Seconds]]:
    """Times by way and round, after a warm-up."""
    set_environment()
    seconds: dict[str, list[Seconds]] = {PLAIN: [], ONE: [], MIXED: [], NONE: []}
    eager = bool(arguments.get("enforce_eager"))
    if not eager:
        seconds[PLAIN] += plain_runs(arguments, prompts, max_tokens, rounds)
    engine = SteerableReplica(steerable_arguments(arguments, sites=(site,), timed=eager and not has_gpu()))
    for number in range(NUM_MIXED):
        engine.put(str(number), random_row(engine.hidden_size, number))
    for number in range(-1, rounds):  # the first is a warm-up
        ways = list(seconds)[0 if eager else 1 :]
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            if eager:
                engine.llm.collective_rpc("runtime_present", args=(way != PLAIN,))
            taken = _run(engine.llm, prompts, asked_by(way, len(prompts), site), max_tokens)
            if eager and not has_gpu():
                taken = replace(taken, operator=max(engine.llm.collective_rpc("runtime_seconds")) / taken.wall)
            if number >= 0:
                seconds[way].append(taken)
                say(f"round {number + 1}, {way}: {taken.wall:.2f} s, {taken.cpu:.2f} s of CPU time")
    engine.close()
    if not eager:
        seconds[PLAIN] += plain_runs(arguments, prompts, max_tokens, rounds)
    return seconds


def plain_runs(arguments: dict[str, Any], prompts: Sequence[list[int]], max_tokens: int, rounds: int) -> list[Seconds]:
    """Runs of an engine without anything of ours, after a warm-up."""
    with plain_engine(arguments) as llm:
        runs = [_run(llm, prompts, [None] * len(prompts), max_tokens) for _ in range(rounds + 1)]
    say(f"plain: {', '.join(f'{run.wall:.2f}' for run in runs[1:])} s")
    return runs[1:]


def asked_by(way: str, number: int, site: str) -> list[Asked | None]:
    """What the prompts of a way ask for."""
    if way in (PLAIN, NONE):
        return [None] * number
    return [Asked(str(place % NUM_MIXED if way == MIXED else 0), 1.0, site=site) for place in range(number)]


def _run(llm: Any, prompts: Sequence[list[int]], asked: Sequence[Asked | None], max_tokens: int) -> Seconds:
    """Times of one `LLM.generate`, from an empty prefix cache."""
    from vllm import SamplingParams

    requests, own = steered(prompts, asked, SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True))
    llm.reset_prefix_cache()
    started, used = time.monotonic(), time.process_time()
    llm.generate(requests, own, use_tqdm=False)
    return Seconds(time.monotonic() - started, time.process_time() - used)


def mixed_edits(session: Session) -> list[Edit]:
    """The 64 variants that are mixed: a random direction each."""
    width = session.checkpoint.hidden_size
    return [Edit(orthonormal_basis(random_row(width, number)), 1.0) for number in range(NUM_MIXED)]


def swap_rate(session: Session, prompts: Sequence[list[int]]) -> float:
    """Output tokens/s of the same 64 variants by hot swap: each its share of the prompts, the swap included."""
    from vllm import SamplingParams

    replica, base, most = session.replica(), session.base, session.config.sampling.max_tokens
    sampling = SamplingParams(temperature=0, max_tokens=most, ignore_eos=True)
    replica.swap(base)
    started = time.monotonic()
    for number, edit in enumerate(mixed_edits(session)[: len(prompts)]):
        replica.swap(Variant(str(number), base.base_hash, base.plan, edit))
        list(replica.outputs(prompts[number::NUM_MIXED], sampling))
    seconds = time.monotonic() - started
    session.close()
    return len(prompts) * most / seconds


def hook_rate(session: Session, prompts: Sequence[list[int]]) -> float:
    """Output tokens/s of transformers' greedy decoding with hooks on the stream entering each block."""
    model = transformers_model(session)
    basis_HK = random_row(session.checkpoint.hidden_size, 0).T
    started = time.monotonic()
    with stream_ablation(model, basis_HK):
        responses = greedy(model, list(prompts), session.config.sampling.max_tokens)
    return sum(map(len, responses)) / (time.monotonic() - started)


def random_row(width: int, seed: int) -> Tensor:
    """A random unit row (1, H)."""
    row_1H = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
    return row_1H / row_1H.norm()
