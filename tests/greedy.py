"""Greedy decoding by transformers, and by vLLM in a process of its own: what a swapped engine is compared with."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

BY_VLLM = """
import json, sys
from engine.environment import set_environment
set_environment()
from vllm import LLM, SamplingParams
arguments, prompts, most = json.loads(sys.stdin.read())
outputs = LLM(**arguments).generate(
    [{"prompt_token_ids": ids} for ids in prompts], SamplingParams(temperature=0, max_tokens=most, logprobs=0), use_tqdm=False
)
said = [output.outputs[0] for output in outputs]
print("SAID", json.dumps([[list(one.token_ids) for one in said], [one.cumulative_logprob for one in said]]))
"""


def by_transformers(folder: Path, prompts: list[list[int]], most: int) -> list[list[int]]:
    """Each prompt's `most` greedy tokens, or fewer where one ends the text; float32, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    said = []
    for prompt in prompts:
        token_ids = list(prompt)
        for _ in range(most):
            with torch.no_grad():
                token_ids.append(int(model(torch.tensor([token_ids])).logits[0, -1].argmax()))
            if token_ids[-1] == model.config.eos_token_id:
                break
        said.append(token_ids[len(prompt) :])
    return said


def by_vllm(arguments: dict[str, object], prompts: list[list[int]], most: int) -> tuple[list[list[int]], list[float]]:
    """The same by vLLM's `LLM(**arguments)`, and each text's log-probability."""
    sent = json.dumps([arguments, prompts, most])
    done = subprocess.run([sys.executable, "-c", BY_VLLM], input=sent, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, done.stderr[-3000:]
    tokens, logprobs = json.loads(lines[0].removeprefix("SAID "))
    return tokens, logprobs
