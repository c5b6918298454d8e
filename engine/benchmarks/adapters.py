"""Adapters beside each other in one engine, vLLM's own way to serve many variants at once."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.adapter import write_adapter
from editing.projection import Edit
from engine.benchmarks.plain import plain_engine
from engine.environment import set_environment
from engine.runs.session import Session
from engine.vllm_compat import adapter_ranks


def adapter_rate(
    session: Session, arguments: Mapping[str, Any], prompts: Sequence[list[int]], edits: Sequence[Edit], max_tokens: int
) -> float:
    """Output tokens/s with an adapter for each edit, on the projections that it edits; prompt n under edit n, over again."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    set_environment()
    rank = max(edit.basis_HK.shape[1] for edit in edits)
    own = {
        "enable_lora": True,
        "max_loras": len(edits),
        "max_lora_rank": min(size for size in adapter_ranks() if size >= rank),
        "lora_target_modules": sorted({tensor.name.split(".")[-2] for tensor in session.plan.edited}),
    }
    with tempfile.TemporaryDirectory(prefix="refusal-adapters-") as folder:
        paths = [Path(folder) / str(number) for number in range(len(edits))]
        for path, edit in zip(paths, edits, strict=True):
            base = session.config.model.path
            write_adapter(
                session.checkpoint,
                session.plan,
                edit,
                path,
                base_model=base,
                record={},
                card="A benchmark's: a random direction is taken out.",
            )
        requests = [LoRARequest(path.name, number + 1, str(path)) for number, path in enumerate(paths)]
        asked = [requests[place % len(requests)] for place in range(len(prompts))]
        sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        with plain_engine({**arguments, **own}) as llm:
            llm.generate(given, SamplingParams(temperature=0, max_tokens=1), lora_request=asked, use_tqdm=False)  # loads them
            llm.reset_prefix_cache()
            started = time.monotonic()
            llm.generate(given, sampling, lora_request=asked, use_tqdm=False)
            seconds = time.monotonic() - started
    return len(prompts) * max_tokens / seconds
