"""`bin/bench-compare`: six checkpoints of one size beside their base, by bin/compare in one engine against an engine each."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.paths import PROJECT_DIR
from engine.runs.of_config import model_name
from engine.runs.session import Session
from engine.sweep.faithful import elsewhere


def bench_compare(config: RunConfig, num_variants: int, num_requests: int) -> dict[str, Any]:
    """Seconds of both ways, end to end, and their ratio; the checkpoints are written before either clock starts.

    Ours does all that `bin/compare` does but the KL: integrity, forensics, judging, table and page. The other way starts an
    engine on the base and on each checkpoint, in a process each, and generates the same responses; nobody judges them.
    """
    data = config.data.model_copy(update={"num_requests": num_requests, "num_answerable": 0})
    config = config.model_copy(update={"data": data})
    session = Session(config)
    with tempfile.TemporaryDirectory(prefix="refusal-compare-") as name:
        folders = _checkpoints(session, Path(name), num_variants)
        started = time.monotonic()
        _compare(config, session.checkpoint.directory, folders, num_requests, Path(name) / "run")
        ours = time.monotonic() - started
        say(f"bench-compare: base and {num_variants} checkpoints in one engine {ours:.1f} s")
        prompts = session.render(session.requests, "test requests")
        theirs = []
        for folder in [session.checkpoint.directory, *folders]:
            started = time.monotonic()
            elsewhere(session, folder, prompts)
            theirs.append(time.monotonic() - started)
            say(f"bench-compare: an engine on {folder.name} {theirs[-1]:.1f} s")
    return {
        "speedup_over_restarts": round(sum(theirs) / ours, 2),
        "one_engine_seconds": round(ours, 1),
        "restarts_seconds": [round(seconds, 1) for seconds in theirs],
        "variants": num_variants,
        "requests": num_requests,
        "max_tokens": config.sampling.max_tokens,
        "model": model_name(config, session.base_hash),
        **describe(),
    }


def _checkpoints(session: Session, folder: Path, count: int) -> list[Path]:
    """Checkpoints of the base, each without a random direction of its own."""
    import torch

    found, plan = [], plan_edit(session.checkpoint)
    for number in range(count):
        drawn_H1 = torch.randn(1, session.checkpoint.hidden_size, generator=torch.Generator().manual_seed(number))
        out = folder / f"random{number}"
        write_edited(session.checkpoint, plan, Edit(orthonormal_basis(drawn_H1), 1.0), out, record={}, card=lambda proofs: "")
        found.append(out)
    return found


def _compare(config: RunConfig, base: Path, folders: Sequence[Path], num_requests: int, out: Path) -> None:
    command = [sys.executable, "-m", "engine.commands.compare", str(base), *map(str, folders), "--num-answerable", "0"]
    command += ["--num-requests", str(num_requests), "--num-kl", "0", "--out", str(out), "--json"]
    command += ["--set", f"sampling.max_tokens={config.sampling.max_tokens}"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise EngineError(f"bin/compare failed: {done.stderr[-800:]}")
    json.loads(done.stdout)
