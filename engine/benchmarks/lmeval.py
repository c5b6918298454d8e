"""`bin/bench-lmeval`: base and variants in one engine against lm-eval started once per checkpoint, end to end."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.checkpoints.export import export
from engine.configs.load import config_toml
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe, has_gpu
from engine.errors import EngineError
from engine.inference.arguments import hardware_arguments
from engine.lmeval.catalogue import EVERYDAY, OWN
from engine.paths import PROJECT_DIR
from engine.rollout.directions import ensure_directions
from engine.rollout.variants import load_variant
from engine.runs.files import DIRECTIONS
from engine.runs.of_config import model_name
from engine.runs.run_dir import open_run_dir
from engine.runs.schemas import Row
from engine.runs.session import Session

DEPTHS = (0.67, 0.7, 0.73, 0.97)  # of the blocks: layers 20, 21, 22 and 29 of SmolLM2's 30


def bench_lmeval(config: RunConfig, limit: int) -> Row:
    """Seconds of both ways and their ratio; the checkpoints that lm-eval opens are written before its clock starts."""
    session = Session(config)  # names the type that the model runs in; our own command finds it again
    layers = sorted({max(1, round(session.checkpoint.num_layers * depth)) for depth in DEPTHS})
    configs = [config.model_copy(update={"variant": f"layer{layer}", "directions": _at(config, layer)}) for layer in layers]
    with tempfile.TemporaryDirectory(prefix="refusal-lmeval-") as name:
        folder = Path(name)
        files = [folder / f"{one.variant}.toml" for one in configs]
        for one, file in zip(configs, files, strict=True):
            file.write_text(config_toml(one))
        checkpoints = [session.checkpoint.directory, *_checkpoints(folder, configs)]
        ours = _timed(_our_command(files, limit, folder), folder)
        say(f"bench-lmeval: base and {len(layers)} variants in one engine {ours:.1f} s")
        theirs = []
        for checkpoint in checkpoints:
            theirs.append(_timed(_their_command(session.config, checkpoint, limit), OWN))
            say(f"bench-lmeval: lm-eval on {checkpoint.name} {theirs[-1]:.1f} s")
    return {
        "speedup_over_restarts": round(sum(theirs) / ours, 2),
        "one_engine_seconds": round(ours, 1),
        "restarts_seconds": [round(seconds, 1) for seconds in theirs],
        "variants": [one.variant for one in configs],
        "task": EVERYDAY,
        "limit": limit,
        "model": model_name(config, session.base_hash),
        **describe(),
    }


def _at(config: RunConfig, layer: int) -> Any:
    return config.directions.model_copy(update={"layers": [layer], "k": None})


def _checkpoints(folder: Path, configs: Sequence[RunConfig]) -> list[Path]:
    """Every variant folded into a checkpoint, from directions that are extracted once."""
    first = Session(configs[0])
    run_dir = open_run_dir(folder / "directions", first.identity)
    ensure_directions(first, run_dir)
    found = []
    for config in configs:
        session = Session(config)
        export(session, load_variant(session, run_dir.file(DIRECTIONS)), folder / config.variant)
        found.append(folder / config.variant)
    return found


def _our_command(files: Sequence[Path], limit: int, folder: Path) -> list[str]:
    variants = [argument for file in files for argument in ("--variant", str(file))]
    bench = [sys.executable, "-m", "engine.commands.bench", *variants]
    return [*bench, "--tasks", EVERYDAY, "--limit", str(limit), "--out", str(folder / "bench"), "--json"]


def _their_command(config: RunConfig, checkpoint: Path, limit: int) -> list[str]:
    """lm-eval with the engine arguments that ours has."""
    arguments = {
        "pretrained": str(checkpoint),
        "dtype": config.model.dtype,
        **hardware_arguments(has_gpu=has_gpu()),
        **config.vllm,
    }
    model = ",".join(f"{name}={value}" for name, value in arguments.items())
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "vllm", "--model_args", model, "--include_path", str(OWN)]
    return [*command, "--tasks", EVERYDAY, "--limit", str(limit), "--batch_size", "auto"]


def _timed(command: Sequence[str], folder: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR), "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if not has_gpu():
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the quick start that our own engine has
    started = time.monotonic()
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command[1:5])} failed: {done.stderr[-800:]}")
    if "--json" in command:
        json.loads(done.stdout)
    return time.monotonic() - started
