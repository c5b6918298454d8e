"""DeepSeek-V2 and V3: latent attention; experts, and shared experts that every token passes; first blocks dense.

Blocks behind the last one, and what they hold, predict further tokens and are no part of the model.
"""

from dataclasses import replace

from editing.families.base import MLP, Writer
from editing.families.llama import BLOCK
from editing.families.qwen3_moe import QWEN3_MOE

LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "q_a_layernorm", "kv_a_layernorm")
SHARED = BLOCK + "mlp.shared_experts."
DEEPSEEK_V3 = replace(
    QWEN3_MOE,
    label="deepseek_v3",
    model_types=("deepseek_v2", "deepseek_v3"),
    writers=(*QWEN3_MOE.writers, Writer(SHARED + "down_proj.weight", MLP)),
    others=(
        *QWEN3_MOE.others,
        *(BLOCK + f"self_attn.{name}.{kind}" for name in LATENT for kind in ("weight", "bias")),
        *(SHARED + "gate_proj.weight", SHARED + "up_proj.weight", BLOCK + "mlp.gate.e_score_correction_bias"),
    ),
    predicts_ahead=True,
)
