"""Llama 3, 3.1 and 3.2, SmolLM2. Its names and block are most other families' too."""

from editing.families.base import EMBEDDING, Family, Writer, linear_writers

BLOCK = "model.layers.{layer}."
EMBED = Writer("model.embed_tokens.weight", EMBEDDING, axis=-1)
ATTENTION_INPUTS = tuple(BLOCK + f"self_attn.{name}_proj.weight" for name in "qkv")
MLP_INPUTS = (BLOCK + "mlp.gate_proj.weight", BLOCK + "mlp.up_proj.weight")
NORMS = ("model.norm.weight", BLOCK + "input_layernorm.weight", BLOCK + "post_attention_layernorm.weight")
O_PROJ, DOWN_PROJ = linear_writers(BLOCK + "self_attn.o_proj", BLOCK + "mlp.down_proj")

LLAMA = Family(
    label="llama",
    model_types=("llama",),
    writers=(EMBED, O_PROJ, DOWN_PROJ),
    others=(*NORMS, *ATTENTION_INPUTS, *MLP_INPUTS, BLOCK + "self_attn.rotary_emb.inv_freq"),
)
