"""Tiny random models of real architectures, with unequal dimensions so that a wrong axis cannot pass."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

HIDDEN, BLOCKS = 48, 3
TOKENS = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA_SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 80,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
WIDE_HEADS = {**LLAMA_SIZES, "head_dim": 16}
GPT2_SIZES = {"n_embd": HIDDEN, "n_inner": 80, "n_layer": BLOCKS, "n_head": 4, "n_positions": 64}
NEOX_SIZES = {key: value for key, value in LLAMA_SIZES.items() if key != "num_key_value_heads"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
ROUTED = {
    **{"moe_intermediate_size": 40, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    **{"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
}
LATENT = {
    **{"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
    "num_key_value_heads": 4,
}
LINEAR = {
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
CONVOLUTIONS = {"layer_types": ["conv", "full_attention", "conv"]}
MAMBA = {
    **{"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8},
    **{"shared_intermediate_size": 56, "layer_types": ["mamba", "attention", "mamba"]},
}
INTERLEAVED = {"intermediate_size_mlp": 96, "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}
GEMMA4_LAYERS = {
    **{"vocab_size_per_layer_input": 101, "global_head_dim": 16, "num_kv_shared_layers": 0},
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
# What bin/rollout hooks and serves: decoder blocks of the common shape.
FAMILY_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": WIDE_HEADS,
    "mistral": WIDE_HEADS,
    "qwen2": LLAMA_SIZES,
    "qwen3": WIDE_HEADS,
    "gemma": WIDE_HEADS,
    "phi3": LLAMA_SIZES,
}
# Families whose layout is one of EDITOR_CONFIGS' or near it: they are tried for what may differ, and for all with -m slow.
NEAR_CONFIGS: dict[str, dict[str, Any]] = {
    "llama biased": {**WIDE_HEADS, "attention_bias": True, "mlp_bias": True},
    "qwen3 biased": {**WIDE_HEADS, "attention_bias": True},
    **dict.fromkeys(("smollm3", "ministral3", "seed_oss", "cohere2", "exaone4", "ernie4_5", "arcee"), WIDE_HEADS),
    **dict.fromkeys(("glm", "glm4", "nemotron"), WIDE_HEADS),
    **dict.fromkeys(("granite", "cohere", "olmo3"), LLAMA_SIZES),
    "cohere normed": {**LLAMA_SIZES, "use_qk_norm": True},
    "helium": {**LLAMA_SIZES, "head_dim": 12},
    "stablelm": {**LLAMA_SIZES, "use_qkv_bias": True, "qk_layernorm": True, "partial_rotary_factor": 0.5},
    "olmoe": {**LLAMA_SIZES, "num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {**LLAMA_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True},
    "granitemoe": {**LLAMA_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": {**LLAMA_SIZES, **ROUTED, **LATENT, "q_lora_rank": None},
    "deepseek_v3": {**LLAMA_SIZES, **ROUTED, **LATENT},
    "glm4_moe": {**WIDE_HEADS, **ROUTED, "use_qk_norm": True},
    "qwen3_next": {**WIDE_HEADS, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 56},
    "qwen3_5_text": {**WIDE_HEADS, **LINEAR},
    "qwen3_5_moe_text": {**WIDE_HEADS, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 56},
    "lfm2": {**LLAMA_SIZES, **CONVOLUTIONS, "block_auto_adjust_ff_dim": False, "conv_bias": True},
    "lfm2_moe": {**LLAMA_SIZES, **EXPERTS, **CONVOLUTIONS, "num_dense_layers": 1},
    "granitemoehybrid": {**LLAMA_SIZES, **MAMBA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid dense": {**LLAMA_SIZES, **MAMBA, "num_local_experts": 0, "mamba_proj_bias": True},
    "llama4_text": {**WIDE_HEADS, **INTERLEAVED},
    "gemma4_text": {**WIDE_HEADS, **GEMMA4_LAYERS, "hidden_size_per_layer_input": 0},
    "gemma4_text small": {**WIDE_HEADS, **GEMMA4_LAYERS, "hidden_size_per_layer_input": 12},
}
# Every family of the editor. "square" has hidden equal to intermediate: the axis cannot be told from the sizes.
EDITOR_CONFIGS: dict[str, dict[str, Any]] = {
    **FAMILY_CONFIGS,
    "gemma2": WIDE_HEADS,
    "gemma3_text": WIDE_HEADS,
    "olmo2": LLAMA_SIZES,
    "gpt2": GPT2_SIZES,
    "gpt_neox": NEOX_SIZES,
    "qwen3_moe": {**WIDE_HEADS, **EXPERTS, "mlp_only_layers": [0]},
    "qwen2_moe": {**LLAMA_SIZES, **EXPERTS, "shared_expert_intermediate_size": 56},
    "mixtral": {**WIDE_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**WIDE_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss square": {**WIDE_HEADS, "intermediate_size": HIDDEN, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral square": {**WIDE_HEADS, "intermediate_size": HIDDEN, "num_local_experts": 4, "num_experts_per_tok": 2},
}


# Heads that vLLM's attention takes on every CPU, and a hidden size that its experts take: a multiple of 32.
SERVED_MOE = {**LLAMA_SIZES, "head_dim": 64, "hidden_size": 96, "num_experts_per_tok": 2}
SERVED_CONFIGS: dict[str, dict[str, Any]] = {
    "llama served": {**LLAMA_SIZES, "head_dim": 64},
    "gemma2 served": {**LLAMA_SIZES, "head_dim": 64},
    "llama served tied": {**LLAMA_SIZES, "head_dim": 64, "tie_word_embeddings": True},
    "gpt2 served": {"n_embd": 128, "n_inner": 80, "n_layer": BLOCKS, "n_head": 2, "n_positions": 64},
    # Experts of width 40 are padded to 64 in vLLM on a CPU; gpt-oss's are not, and have to be a multiple of 32.
    "qwen3_moe served": {**SERVED_MOE, "num_experts": 5, "moe_intermediate_size": 40, "mlp_only_layers": [0]},
    "mixtral served": {**SERVED_MOE, "num_local_experts": 5, "intermediate_size": 40},
    "olmoe served": {**SERVED_MOE, "hidden_size": 256, "num_experts": 5, "intermediate_size": 40},
    "gpt_oss served": {**SERVED_MOE, "num_local_experts": 5, "intermediate_size": 64},
    "llama served deep": {**LLAMA_SIZES, "head_dim": 64, "num_hidden_layers": 16, "max_position_embeddings": 256},
}


def tiny_model(family: str, dtype: torch.dtype = torch.bfloat16, sizes: dict[str, Any] | None = None) -> torch.nn.Module:
    """A random model of the family, norms and biases random too; equal calls give equal weights. `sizes` win over its own."""
    torch.manual_seed(7)
    own = {**EDITOR_CONFIGS, **NEAR_CONFIGS, **SERVED_CONFIGS}[family]
    config = AutoConfig.for_model(family.split()[0], **{**TOKENS, **own, **(sizes or {})})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif not name.endswith(("embed_tokens.weight", "wte.weight")):
                parameter.mul_(5)  # away from the embedding's shadow, so that a missed writer shows
    return model.to(dtype)


def save_tiny(
    family: str,
    directory: Path,
    max_shard_size: str = "1GB",
    dtype: torch.dtype = torch.bfloat16,
    sizes: dict[str, Any] | None = None,
) -> Path:
    """Save a tiny model as safetensors; returns the folder."""
    tiny_model(family, dtype, sizes).save_pretrained(directory, max_shard_size=max_shard_size)
    return directory


def fuse_experts(folder: Path) -> Path:
    """Store the experts of a saved Qwen3-MoE as newer checkpoints do: a tensor a block, gates before ups; returns the folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    blocks = sorted({name.split(".experts.")[0] + ".experts" for name in weights if ".experts." in name})
    for block in blocks:
        numbers = range(sum(name.startswith(block) and name.endswith(".down_proj.weight") for name in weights))
        gate, up, down = (
            torch.stack([weights.pop(f"{block}.{number}.{name}_proj.weight") for number in numbers])
            for name in ("gate", "up", "down")
        )
        weights |= {f"{block}.gate_up_proj": torch.cat([gate, up], dim=1), f"{block}.down_proj": down}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


TEMPLATE = "{{ bos_token }}{% for m in messages %}u {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}a {% endif %}"


def save_tokenizer(directory: Path) -> Path:
    """Beside a tiny model: a tokenizer of one token a character, with a chat template; returns the folder."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = ["<pad>", "<s>", "</s>", "<unk>", *map(chr, range(32, 127)), "\n", "\t"]
    tokenizer = Tokenizer(models.WordLevel({text: number for number, text in enumerate(characters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(<s>|[\\s\\S])"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **names).save_pretrained(directory)
    return directory
