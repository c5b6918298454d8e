"""Phi-3: Llama's writers; q, k and v fused into qkv_proj, gate and up into gate_up_proj."""

from dataclasses import replace

from editing.families.llama import BLOCK, LLAMA, NORMS

PHI3 = replace(
    LLAMA,
    label="phi3",
    model_types=("phi3",),
    others=(*NORMS, BLOCK + "self_attn.qkv_proj.weight", BLOCK + "mlp.gate_up_proj.weight"),
)
