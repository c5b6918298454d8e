"""Llama 3, 3.1 and 3.2, SmolLM2. Its names and block are most other families' too.

`attention_bias` and `mlp_bias` of config.json add a bias to every projection; those of o_proj and down_proj write.
"""

from editing.families.base import BIAS, EMBEDDING, Family, Writer, linear_writers

BLOCK = "model.layers.{layer}."
EMBED = Writer("model.embed_tokens.weight", EMBEDDING, axis=-1)
ATTENTION_INPUTS = tuple(BLOCK + f"self_attn.{name}_proj.weight" for name in "qkv")
MLP_INPUTS = (BLOCK + "mlp.gate_proj.weight", BLOCK + "mlp.up_proj.weight")
NORMS = ("model.norm.weight", BLOCK + "input_layernorm.weight", BLOCK + "post_attention_layernorm.weight")
O_PROJ, DOWN_PROJ = linear_writers(BLOCK + "self_attn.o_proj", BLOCK + "mlp.down_proj")
O_BIAS, DOWN_BIAS = (Writer(BLOCK + f"{name}.bias", BIAS, axis=-1) for name in ("self_attn.o_proj", "mlp.down_proj"))
QKV_BIASES = tuple(BLOCK + f"self_attn.{name}_proj.bias" for name in "qkv")
READER_BIASES = (*QKV_BIASES, BLOCK + "mlp.gate_proj.bias", BLOCK + "mlp.up_proj.bias")

LLAMA = Family(
    label="llama",
    model_types=("llama",),
    writers=(EMBED, O_PROJ, DOWN_PROJ, O_BIAS, DOWN_BIAS),
    others=(*NORMS, *ATTENTION_INPUTS, *MLP_INPUTS, *READER_BIASES, BLOCK + "self_attn.rotary_emb.inv_freq"),
)
