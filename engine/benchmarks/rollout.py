"""The cost of streaming to Parquet: our rollout against plain `LLM.generate` on the same engine and prompts, in turns."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.environment import describe
from engine.rollout.stages import generate_rows
from engine.runs import parquet
from engine.runs.files import ROLLOUTS
from engine.runs.schemas import ROLLOUT_SCHEMA
from engine.runs.session import Session


def bench_rollout(config: RunConfig, rounds: int) -> dict[str, Any]:
    """Output tokens/s of both, over `rounds` rounds of one each in alternating order, and the median of their ratios."""
    session = Session(config)
    prompts = session.render(session.requests, "test requests")
    session.replica()
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        _plain_rate(session, prompts)  # warm-up
        for number in range(rounds):
            if number % 2:
                plain.append(_plain_rate(session, prompts))
            ours.append(_our_rate(session, Path(folder) / str(number)))
            if not number % 2:
                plain.append(_plain_rate(session, prompts))
    session.close()
    return {
        "ratio_to_vllm": round(statistics.median(mine / theirs for mine, theirs in zip(ours, plain, strict=True)), 4),
        "ours_tokens_per_second": [round(rate, 1) for rate in ours],
        "vllm_tokens_per_second": [round(rate, 1) for rate in plain],
        "prompts": len(prompts),
        "max_tokens": config.sampling.max_tokens,
        "model": config.model.path,
        **describe(),
    }


def _plain_rate(session: Session, prompts: list[list[int]]) -> float:
    from vllm import SamplingParams

    llm = session.replica().llm
    llm.reset_prefix_cache()
    sampling = SamplingParams(temperature=0, max_tokens=session.config.sampling.max_tokens)
    started = time.monotonic()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.monotonic() - started)


def _our_rate(session: Session, folder: Path) -> float:
    session.replica().llm.reset_prefix_cache()
    folder.mkdir()
    table = parquet.ShardedTable(folder / ROLLOUTS, ROLLOUT_SCHEMA)
    started = time.monotonic()
    generate_rows(session, session.base, session.requests, table)
    table.merge({"prompt_id": None})
    seconds = time.monotonic() - started
    return sum(row["num_output_tokens"] for row in parquet.read_rows(table.path)) / seconds
