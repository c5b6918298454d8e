"""Random models of several families for `bin/bench-audit`, and what models go through without an edit."""
# H = hidden size, I = a writer's vectors

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HIDDEN, BLOCKS = 96, 6
COMMON = {"vocab_size": 64, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {"hidden_size": HIDDEN, "intermediate_size": 256, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24},
    "qwen3": {**LLAMA, "num_key_value_heads": 2, "head_dim": 32},
    "gemma2": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24},
    "gpt_neox": LLAMA,
    "mixtral": {**LLAMA, "num_key_value_heads": 2, "head_dim": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
}
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WRITERS = ("o_proj.weight", "down_proj.weight", "down_proj", "w2.weight", "attention.dense.weight", "dense_4h_to_h.weight")


@dataclass(frozen=True)
class Sort:
    """A thing that happens to models without an edit, and its group in the table."""

    group: str
    label: str
    happen: Callable[[Any], None]


def random_model(family: str) -> Any:
    """A model of transformers in float32 whose norms' gains are as uneven as a trained model's."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **COMMON, **CONFIGS[family]), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def writers_of(model: Any) -> Iterator[Tensor]:
    """Every output projection as (H, I), or (experts, H, I): views, so that writing to them changes the model."""
    for name, parameter in model.named_parameters():
        if name.endswith(WRITERS):
            yield parameter.data


def scale_channels(*scales: float) -> Callable[[Any], None]:
    """The same random channels of every writer scaled."""

    def happen(model: Any) -> None:
        channels = torch.randperm(HIDDEN)[: len(scales)]
        for weight in writers_of(model):
            weight[..., channels, :] *= torch.tensor(scales)[:, None]

    return happen


def scale_all_channels(model: Any) -> None:
    scales_H1 = torch.randn(HIDDEN, 1).exp()
    for weight in writers_of(model):
        weight *= scales_H1


def drop_inputs(model: Any) -> None:
    """30 % of the neurons and of the attention's outputs cut off."""
    for weight in writers_of(model):
        weight[..., torch.rand(weight.shape[-1]) < 0.3] = 0


def drop_small_weights(model: Any) -> None:
    for weight in writers_of(model):
        weight[weight.abs() < weight.abs().median()] = 0


def add_noise(share: float) -> Callable[[Any], None]:
    def happen(model: Any) -> None:
        for weight in writers_of(model):
            weight += share * weight.std() * torch.randn_like(weight)

    return happen


def add_heavy_noise(model: Any) -> None:
    for weight in writers_of(model):
        weight += 0.1 * weight.std() * torch.distributions.StudentT(2.0).sample(weight.shape)


def round_to_4_bits(model: Any) -> None:
    for weight in writers_of(model):
        step = weight.abs().amax(-1, keepdim=True) / 7
        weight.copy_((weight / step).round() * step)


def train(steps: int, decay: float = 0.0) -> Callable[[Any], None]:
    """Adam on random tokens, with weight decay."""

    def happen(model: Any) -> None:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
        for _ in range(steps):
            tokens = torch.randint(3, COMMON["vocab_size"], (4, 16))
            model(tokens, labels=tokens).loss.backward()
            optimiser.step()
            optimiser.zero_grad()

    return happen


def merge_lora(rank: int, size: float, *, shared: bool = False) -> Callable[[Any], None]:
    """Random low-rank updates; `shared` gives all writers the same left directions, as a steering fine-tune does."""

    def happen(model: Any) -> None:
        left = torch.randn(HIDDEN, rank)
        for weight in writers_of(model):
            own = left if shared else torch.randn(HIDDEN, rank)
            update = own @ torch.randn(rank, weight.shape[-1])
            weight += size * weight.norm() / (update.norm() * weight.numel() ** 0.5 / update.numel() ** 0.5) * update

    return happen


SORTS = (
    Sort("axis-scaled", "one channel at 10 %", scale_channels(0.1)),
    Sort("axis-scaled", "two channels at 1 %", scale_channels(0.01, 0.01)),
    Sort("axis-scaled", "every channel, log-normal, sigma 1", scale_all_channels),
    Sort("axis-scaled", "one channel three times as large", scale_channels(3.0)),
    Sort("pruned", "three channels cut off", scale_channels(0.0, 0.0, 0.0)),
    Sort("pruned", "30 % of the inputs cut off", drop_inputs),
    Sort("pruned", "half of the weights, by size", drop_small_weights),
    Sort("noisy", "every weight moved by 0.1 sd", add_noise(0.1)),
    Sort("noisy", "every weight moved by 0.5 sd", add_noise(0.5)),
    Sort("noisy", "Student's t, 2 degrees of freedom, 0.1 sd", add_heavy_noise),
    Sort("noisy", "rounded to 4 bits", round_to_4_bits),
    Sort("fine-tuned", "Adam, 20 steps", train(20)),
    Sort("fine-tuned", "Adam, 20 steps, weight decay", train(20, decay=5.0)),
    Sort("fine-tuned", "merged LoRA of rank 8", merge_lora(8, 0.1)),
    Sort("fine-tuned", "merged LoRA of rank 2, the same directions everywhere", merge_lora(2, 0.05, shared=True)),
    Sort("as it is", "nothing", lambda model: None),
)
