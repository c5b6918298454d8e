"""gpt-oss (unquantised): experts fused as (experts, input, hidden), the transpose of the others; biases on every projection."""

from dataclasses import replace

from editing.families.base import BIAS, MLP, Writer
from editing.families.llama import ATTENTION_INPUTS, BLOCK, EMBED, LLAMA, NORMS, O_PROJ

GPT_OSS = replace(
    LLAMA,
    label="gpt_oss",
    model_types=("gpt_oss",),
    writers=(
        *(EMBED, O_PROJ, Writer(BLOCK + "self_attn.o_proj.bias", BIAS, axis=-1)),
        Writer(BLOCK + "mlp.experts.down_proj", MLP, axis=-1),
        Writer(BLOCK + "mlp.experts.down_proj_bias", BIAS, axis=-1),
    ),
    others=(
        *(*NORMS, *ATTENTION_INPUTS, *(BLOCK + f"self_attn.{name}_proj.bias" for name in "qkv"), BLOCK + "self_attn.sinks"),
        *(BLOCK + "mlp.experts.gate_up_proj", BLOCK + "mlp.experts.gate_up_proj_bias"),
        *(BLOCK + "mlp.router.weight", BLOCK + "mlp.router.bias"),
    ),
)
