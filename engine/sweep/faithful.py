"""A variant by hot swap against the checkpoint that bin/edit writes for it: the same greedy tokens on the test prompts."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.directions import DIRECTIONS, ensure_directions
from engine.environment import describe, has_gpu, release_gpu_memory
from engine.errors import EngineError
from engine.export import export
from engine.progress import say
from engine.replica import engine_arguments
from engine.rundir import open_for_directions
from engine.session import Session
from engine.stages import load_variant
from engine.sweep.work import Host, Task

GENERATE = """
import json, sys
from engine.replica import set_environment
arguments, prompts, max_tokens, gpu = json.load(sys.stdin)
set_environment(has_gpu=gpu)
from vllm import LLM, SamplingParams
llm = LLM(**arguments)
sampling = SamplingParams(temperature=0, max_tokens=max_tokens)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
print("TOKENS", json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
"""


def check_export(config: RunConfig) -> dict[str, Any]:
    """Generate with both, each in a process of its own engine; returns how many responses are equal token for token."""
    session = Session(config)
    session.layers()
    session.check_swappable()
    prompts = session.render(session.requests, "test requests")
    with tempfile.TemporaryDirectory(prefix="refusal-export-") as folder:
        run_dir = open_for_directions(Path(folder) / "run", session.identity)
        ensure_directions(session, run_dir)
        variant = load_variant(session, run_dir.file(DIRECTIONS))
        export(session, variant, Path(folder) / "model")
        say("checkpoint: generating in an engine of its own, plain vLLM")
        folded = generate_elsewhere(session, Path(folder) / "model", prompts)
        sampling = session.config.sampling.model_copy(update={"temperature": 0.0})
        task = Task(variant, variant.hash, tuple(r.prompt_id for r in session.requests), tuple(map(tuple, prompts)), sampling)
        swapped = [generation.token_ids for generation in Host(session.replica()).do(task).generations]
        session.close()
    equal = sum(ours == theirs for ours, theirs in zip(swapped, folded, strict=True))
    return {"variant": variant.name, "variant_hash": variant.hash, "prompts": len(prompts), "equal": equal, **describe()}


def generate_elsewhere(session: Session, model: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy token ids of a plain vLLM engine on the checkpoint `model`, in a process of its own."""
    arguments = engine_arguments(session.config, model, has_gpu=has_gpu()) | {"worker_extension_cls": ""}
    release_gpu_memory()
    sent = json.dumps([arguments, prompts, session.config.sampling.max_tokens, has_gpu()])
    done = subprocess.run([sys.executable, "-c", GENERATE], input=sent, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOKENS ")]
    if done.returncode != 0 or not lines:
        raise EngineError(f"The engine on the written checkpoint failed: {done.stderr.strip().splitlines()[-1:]}")
    return list(json.loads(lines[0].removeprefix("TOKENS ")))
