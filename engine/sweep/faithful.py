"""A variant by hot swap against the checkpoint that bin/edit writes for it: the same greedy tokens on the test prompts."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.checkpoints.export import export
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe, has_gpu, release_gpu_memory
from engine.errors import EngineError
from engine.evaluate.tasks import Host, Task
from engine.inference.arguments import engine_arguments
from engine.rollout.directions import ensure_directions
from engine.rollout.variants import load_variant
from engine.runs.files import DIRECTIONS
from engine.runs.machine import check_machine
from engine.runs.run_dir import open_for_directions
from engine.runs.session import Session
from engine.vllm_compat import weight_digests

GENERATE = """
import json, sys
from engine.environment import set_environment
arguments, prompts, max_tokens = json.load(sys.stdin)
set_environment()
from vllm import LLM, SamplingParams
from engine.vllm_compat import weight_digests
llm = LLM(**arguments)
sampling = SamplingParams(temperature=0, max_tokens=max_tokens)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
found = {"tokens": [list(output.outputs[0].token_ids) for output in outputs], "digests": weight_digests(llm)}
print("FOUND", json.dumps(found))
"""


def check_export(config: RunConfig) -> dict[str, Any]:
    """Compare a hot swap with a new engine on the checkpoint that is written for it, each in a process of its own.

    `ok`: every weight has the same digest, which proves it on a GPU. On a CPU, where vLLM packs weights away, and in vLLM's
    batch-invariant mode: all greedy responses are equal token for token. Elsewhere texts fork where what shares a batch does.
    """
    session = Session(config)
    session.layers()
    session.check_swappable()
    check_machine(session)
    prompts = session.render(session.requests, "test requests")
    with tempfile.TemporaryDirectory(prefix="refusal-export-") as folder:
        run_dir = open_for_directions(Path(folder) / "run", session.identity)
        ensure_directions(session, run_dir)
        variant = load_variant(session, run_dir.file(DIRECTIONS))
        export(session, variant, Path(folder) / "model")
        say("checkpoint: generating in an engine of its own, plain vLLM")
        folded = elsewhere(session, Path(folder) / "model", prompts)
        sampling = session.config.sampling.model_copy(update={"temperature": 0.0})
        task = Task(variant, variant.hash, tuple(r.prompt_id for r in session.requests), tuple(map(tuple, prompts)), sampling)
        replica = session.replica()
        swapped = [generation.token_ids for generation in Host(replica).do(task).generations]
        digests = weight_digests(replica.llm)
        session.close()
    equal = sum(ours == theirs for ours, theirs in zip(swapped, folded["tokens"], strict=True))
    weights = None if digests is None else digests == folded["digests"]
    text_decides = weights is None or os.environ.get("VLLM_BATCH_INVARIANT") == "1"
    ok = weights is not False and (equal == len(prompts) or not text_decides)
    found = {"prompts": len(prompts), "equal": equal, "weights_equal": weights, "ok": ok}
    return {"variant": variant.name, "variant_hash": variant.hash, **found, **describe()}


def elsewhere(session: Session, model: Path, prompts: list[list[int]]) -> dict[str, Any]:
    """Greedy `tokens` and weight `digests` of a plain vLLM engine on the checkpoint `model`, in a process of its own."""
    arguments = engine_arguments(session.config, model, has_gpu=has_gpu(), window=session.window)
    release_gpu_memory()
    sent = json.dumps([arguments | {"worker_extension_cls": ""}, prompts, session.config.sampling.max_tokens])
    done = subprocess.run([sys.executable, "-c", GENERATE], input=sent, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if done.returncode != 0 or not lines:
        raise EngineError(f"The engine on the written checkpoint failed: {done.stderr.strip().splitlines()[-1:]}")
    return dict(json.loads(lines[0].removeprefix("FOUND ")))
