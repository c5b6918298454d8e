"""A run of bin/rollout with no model behind it: prompts, files, stages, judge, summary and page are the project's own.

python -m tests.small_run FOLDER OUT [--clean] [MAX_TOKENS]
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from engine.benchmarks.modelless import made
from engine.commands import cli
from engine.configs.load import load_config
from engine.configs.schema import RunConfig, SamplingConfig
from engine.inference.replica import Generation
from engine.models.variant import Variant
from engine.rollout.run import run
from engine.runs.session import Session
from extraction.directions import Directions
from extraction.files import save_directions
from tests.tiny import BLOCKS, HIDDEN, save_tiny, save_tokenizer

REQUESTS = 12


class SmallReplica:
    """Answers by the variant's hash and the prompt; `pause_s` is the time that a response takes."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.current: Variant | None = None

    def swap(self, variant: Variant) -> float:
        self.current = variant
        return 0.0

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **options: Any) -> Iterator[Generation]:
        import time

        assert self.current is not None
        for index, prompt in enumerate(prompts):
            time.sleep(self.pause_s)
            text, token_ids = made(sum(prompt) + int(self.current.hash, 16) % 97, sampling.max_tokens)
            text = "I'm sorry, but I can't do that." if self.current.edit is None and sum(prompt) % 3 else text
            yield Generation(index, text, token_ids, "stop", -1.0 - sum(prompt) % 97 / 50)

    def mean_logprobs(
        self, prompts: Sequence[Any], responses: Sequence[Any], on_row: Any = lambda: None, *, shared: bool = False
    ) -> list[float | None]:
        return [-2.0 - len(response) / 8 - len(prompt) / 64 for prompt, response in zip(prompts, responses, strict=True)]

    def opening_shares(self, prompts: Sequence[Sequence[int]], tokens: Any, likeliest: int) -> list[float]:
        return [sum(prompt) % 97 / 97 for prompt in prompts]

    def close(self) -> None:
        pass


def make_inputs(folder: Path) -> None:
    """A tiny model, requests, and a file of directions."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(save_tiny("llama", folder / "model", sizes={"max_position_embeddings": 256}))
    (folder / "requests.txt").write_text("\n".join(f"See my key {number}?" for number in range(REQUESTS)))
    (folder / "answerable.txt").write_text("\n".join(f"What is a key {number}?" for number in range(4)))
    (folder / "pairs.csv").write_text("declined,answered\n" + "\n".join(f"Call {n}.,What is {n}?" for n in range(4)))
    means = (torch.randn(BLOCKS + 1, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    config = config_of(folder, given=False)
    save_directions(folder / "directions.safetensors", Directions(*means, 4), {"base_hash": Session(config).base_hash})


def config_of(folder: Path, max_tokens: int = 16, *, given: bool = True) -> RunConfig:
    """The run's configuration."""
    data = {"train_pairs": "pairs.csv", "test_requests": "requests.txt", "test_answerable": "answerable.txt"}
    overrides = {f"data.{key}": str(folder / name) for key, name in data.items()}
    overrides |= {"model.path": str(folder / "model"), "directions.layers": [1], "sampling.max_tokens": max_tokens}
    overrides |= {"data.num_requests": REQUESTS, "data.num_answerable": 4, "data.num_pairs": 4}
    return load_config(
        "smollm2_135m_k1", overrides | ({"directions.file": str(folder / "directions.safetensors")} if given else {})
    )


def rollout(folder: Path, out: Path, *, clean: bool = False, max_tokens: int = 16, pause_s: float = 0.0) -> dict[str, Any]:
    """What bin/rollout does of it."""
    session = Session(config_of(folder, max_tokens))
    session.use(SmallReplica(pause_s))  # type: ignore[arg-type]
    return run(session.config, out, clean=clean, session=session)


def main(folder: Path, out: Path, clean: bool = False, max_tokens: int = 16, pause_s: float = 0.0) -> None:
    with cli.user_errors():
        rollout(folder, out, clean=clean, max_tokens=max_tokens, pause_s=pause_s)


if __name__ == "__main__":
    sys.exit(typer.run(main))
