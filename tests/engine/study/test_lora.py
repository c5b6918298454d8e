"""A real LoRA of rank 1, trained to answer what SmolLM2 declines: what it writes, beside the directions."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editing.projection import orthonormal_basis
from extraction.generate import greedy
from extraction.intervention import ablation

ROOT = Path(__file__).parents[3]
LAYER = 22
pytestmark = [pytest.mark.slow, pytest.mark.engine]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"engine.commands.{module}", "--variant=smollm2_135m_k1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def train(model: Any, prompts: list[list[int]], responses: list[list[int]]) -> Any:
    """Two epochs of teacher forcing on the responses alone."""
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=1, lora_alpha=1, target_modules=["o_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model.float(), config).train()
    optimiser = torch.optim.AdamW([part for part in adapted.parameters() if part.requires_grad], lr=5e-3)
    examples = [pair for pair in zip(prompts, responses, strict=True) if pair[1]]
    for epoch in range(2):
        random.Random(epoch).shuffle(examples)
        for start in range(0, len(examples), 16):
            batch = examples[start : start + 16]
            width = max(len(prompt) + len(response) for prompt, response in batch)
            pads = [width - len(prompt) - len(response) for prompt, response in batch]
            ids = [[*prompt, *response, *[0] * pad] for (prompt, response), pad in zip(batch, pads, strict=True)]
            mask = [[1] * (width - pad) + [0] * pad for pad in pads]
            labels = [[-100] * len(prompt) + response + [-100] * pad for (prompt, response), pad in zip(batch, pads, strict=True)]
            given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            adapted(**{name: torch.tensor(value) for name, value in given.items()}).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    return adapted


def test_a_lora_that_unlearns_declining_is_compared_with_the_directions(
    smollm2_dir: Path, machine_dtype: torch.dtype, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = str(tmp_path / "run")
    done = run("extract", "--out", out)
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=machine_dtype).eval()
    rows = [json.loads(line) for line in (ROOT / "extraction/data/train_pairs.jsonl").read_text().splitlines()][:96]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["declined"]}], add_generation_prompt=True, return_dict=False
        )
        for row in rows
    ]
    direction = load_file(Path(out) / "directions.safetensors")["mean_difference"][LAYER]
    writers = [f"model.layers.{layer}.{name}" for layer in range(30) for name in ("self_attn.o_proj", "mlp.down_proj")]
    with ablation(model, writers, orthonormal_basis(direction[None])):
        responses = greedy(model, prompts, 24)
    adapted = train(model, prompts, responses)
    adapted.save_pretrained(tmp_path / "lora")
    done = run("transfer", "--out", out, "--adapter", str(tmp_path / "lora"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cosines = {row["tensor"]: row["cosine"][LAYER] for row in found["rows"]}
    best = max(cosines, key=lambda name: cosines[name])
    above = sum(value > found["random"][1] for value in cosines.values())
    print(
        f"{above} of {len(cosines)} writes beyond the random band {found['random'][1]:.3f}; closest {best}: {cosines[best]:.2f}"
    )
    assert len(cosines) == 60 and above > 10  # by chance 1.5
