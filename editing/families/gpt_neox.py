"""GPT-NeoX and Pythia: attention and MLP in parallel, output biases, untied head."""

from editing.families.base import BIAS, EMBEDDING, Family, Writer, linear_writers

BLOCK = "gpt_neox.layers.{layer}."
READERS = ("input_layernorm", "post_attention_layernorm", "attention.query_key_value", "mlp.dense_h_to_4h")
GPT_NEOX = Family(
    label="gpt_neox",
    model_types=("gpt_neox",),
    heads=("embed_out.weight",),
    writers=(
        Writer("gpt_neox.embed_in.weight", EMBEDDING, axis=-1),
        *linear_writers(BLOCK + "attention.dense", BLOCK + "mlp.dense_4h_to_h"),
        Writer(BLOCK + "attention.dense.bias", BIAS, axis=-1),
        Writer(BLOCK + "mlp.dense_4h_to_h.bias", BIAS, axis=-1),
    ),
    others=(
        *(BLOCK + f"{name}.{kind}" for name in READERS for kind in ("weight", "bias")),
        *("gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"),
        *(BLOCK + f"attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq")),
    ),
)
