"""`bin/bench-serve`: a folded variant behind `bin/serve`, plain and swappable, against bare `vllm serve` on the same folder.

All servers are up together and take turns; the client is `vllm bench serve`.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.configs.load import config_toml
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe, has_gpu
from engine.errors import EngineError
from engine.paths import PROJECT_DIR
from engine.rollout.variants import open_sessions
from engine.runs.of_config import model_name
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.serving.checks import KEY_VARIABLE, ServeOptions
from engine.serving.launch import SWAPPABLE, prepare
from engine.serving.ready import is_healthy

PATIENCE_S = 600.0
CACHE_BYTES = 2**29
KEY = "bench-serve"
PLAIN, FOLDED = "vllm", "folded"


def bench_serve(config: RunConfig, requests: int, output_tokens: int, concurrent: int, rounds: int) -> Row:
    """Median ratios of output tokens a second over the rounds, and every round's figures."""
    session = open_sessions([config])[0]
    ports = {name: _free_port() for name in (PLAIN, FOLDED, SWAPPABLE)}
    names = {PLAIN: config.variant, FOLDED: config.variant, SWAPPABLE: SWAPPABLE}
    figures: dict[str, list[float]] = {name: [] for name in ports}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder, contextlib.ExitStack() as stack:
        prompts = _write_prompts(session, Path(folder), requests)
        config_file = Path(folder) / f"{config.variant}.toml"
        config_file.write_text(config_toml(config))
        for name, command in _commands(session, config_file, ports).items():
            stack.enter_context(_server(name, command, ports[name], Path(folder)))
            say(f"bench-serve: {name} is up")
        client = ["--num-prompts", str(requests), "--custom-output-len", str(output_tokens), "--max-concurrency", str(concurrent)]
        for number in range(rounds + 1):
            for name in sorted(ports, reverse=bool(number % 2)):
                figure = _measure([*client, "--model", names[name]], prompts, session.checkpoint.directory, ports[name])
                if number:  # the first round warms up
                    figures[name].append(figure)
                    say(f"bench-serve: round {number}, {name} {figure:.0f} output tokens/s")
    return {
        "ratio_to_vllm": _ratio(figures, FOLDED),
        "ratio_swappable": _ratio(figures, SWAPPABLE),
        "output_tokens_per_second": {name: [round(figure, 1) for figure in found] for name, found in figures.items()},
        "requests": requests,
        "output_tokens": output_tokens,
        "concurrent": concurrent,
        "model": model_name(config, session.base_hash),
        **describe(),
    }


def _ratio(figures: Mapping[str, Sequence[float]], name: str) -> float:
    return round(statistics.median(ours / plain for ours, plain in zip(figures[name], figures[PLAIN], strict=True)), 3)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _write_prompts(session: Session, folder: Path, count: int) -> Path:
    file = folder / "prompts.jsonl"
    texts = [request.text for request in session.requests]
    if len(texts) < count:
        raise EngineError(f"The variant has {len(texts)} test requests; --requests asks for {count}.")
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts[:count]))
    return file


def _commands(session: Session, config_file: Path, ports: Mapping[str, int]) -> dict[str, list[str]]:
    """Bare vLLM on the folder that `bin/serve` would serve, and `bin/serve` itself with a key, twice."""
    # Three servers share the card, or the memory.
    share = ["--gpu-memory-utilization", "0.25"] if has_gpu() else ["--kv-cache-memory-bytes", str(CACHE_BYTES)]
    plain = prepare([session], ServeOptions(port=ports[PLAIN], extra=tuple(share)), None).command
    serve = [sys.executable, "-m", "engine.commands.serve", "--variant", str(config_file)]
    return {
        PLAIN: plain,
        FOLDED: [*serve, "--port", str(ports[FOLDED]), "--", *share],
        SWAPPABLE: [*serve, "--swappable", "--port", str(ports[SWAPPABLE]), "--", *share],
    }


@contextlib.contextmanager
def _server(name: str, command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    """A server until the block ends. Raises EngineError with the end of its log where it does not come up."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR)} | ({} if name == PLAIN else {KEY_VARIABLE: KEY})
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_healthy(f"http://127.0.0.1:{port}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"The server {name} did not come up: {log.read_text()[-1500:]}")
            time.sleep(1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _measure(client: Sequence[str], prompts: Path, tokenizer: Path, port: int) -> float:
    """Output tokens a second of one run of `vllm bench serve`."""
    command = [str(Path(sys.executable).with_name("vllm")), "bench", "serve", "--backend", "openai-chat", *client]
    command += ["--base-url", f"http://127.0.0.1:{port}", "--endpoint", "/v1/chat/completions", "--tokenizer", str(tokenizer)]
    command += ["--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-chat-template", "--disable-tqdm"]
    command += ["--ignore-eos", "--temperature", "0"]
    command += ["--save-result", "--result-dir", str(prompts.parent), "--result-filename", "result.json"]
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise EngineError(f"vllm bench serve failed: {done.stderr[-800:]}")
    result = json.loads((prompts.parent / "result.json").read_text())
    if result["failed"]:
        raise EngineError(f"{result['failed']} of the requests failed: {done.stdout[-800:]}")
    return float(result["output_throughput"])
