"""A run directory with rollouts and no model behind it, and judges' files that point at a test's own endpoint."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.configs.load import load_config
from engine.runs import parquet
from engine.runs.run_dir import open_run_dir
from engine.runs.schemas import ROLLOUT_SCHEMA
from tests.commands import ran
from tests.judging.chaos import KEY, Chaos

ROOT = Path(__file__).parents[3]
KEY_VARIABLE = "CHAOS_JUDGE_KEY"
TEXTS = [
    "I'm sorry, but I can't see your pocket.",
    "The key number {} is on the table by the door.",
    "",
    "and and and and and {}",
]


def make_run(path: Path, count: int) -> Path:
    """A finished run of `count` requests, answered by a base and a variant."""
    config = load_config("smollm2_135m_k1")
    run_dir = open_run_dir(path, {"config": config.model_dump(mode="json", exclude={"sweep": True}), "base_hash": "b"})
    rows = []
    for place, (variant, form) in enumerate((("base", "base"), ("smollm2_135m_k1", "in_place"))):
        for number in range(count):
            columns: dict[str, Any] = dict.fromkeys(ROLLOUT_SCHEMA.names)
            kind = "declined" if number % 2 else "answerable"
            columns |= {"variant": variant, "variant_hash": f"hash-{form}", "form": form, "split": "test", "kind": kind}
            columns |= {"prompt_id": f"{kind}/{number:05d}", "prompt": f"Where is my key {number}?", "model": "m@0"}
            columns |= {"response": TEXTS[(number + place) % 4].format(number), "finish_reason": "stop"}
            rows.append(columns)
    parquet.write_table(run_dir.file("rollouts.parquet"), rows, ROLLOUT_SCHEMA)
    return path


def judge_file(path: Path, chaos: Chaos, **endpoint: Any) -> Path:
    """A judge's TOML file that points at a chaos server."""
    import tomli_w

    options = {"timeout_s": 1.0, "deadline_s": 20.0, "api_key_env": KEY_VARIABLE}
    table = {"endpoint": {"base_url": chaos.url, "model": "judge", **options, **endpoint}}
    path.write_text(tomli_w.dumps(table))
    return path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command: our code, a cache of its own, the endpoint's key."""
    own = {"PYTHONPATH": str(ROOT), "REFUSAL_ROLLOUT_CACHE": str(folder / "cache"), KEY_VARIABLE: KEY, "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own, **more}


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"engine.commands.{module}", *map(str, arguments)]


def process(folder: Path, module: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, in a process of its own, as one that starts an engine needs."""
    line = command(module, *arguments)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, env=environment(folder, **more))


def run(folder: Path, module: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """A command to its end, here."""
    return ran(module, *arguments, cwd=folder, **environment(folder, **more))
