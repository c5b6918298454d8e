"""GPT-2: Conv1D weights are stored (input, output), projections have biases, positions are embedded; head tied to wte.

Old checkpoints leave out `transformer.` and carry the attention's mask buffers.
"""

from editing.families.base import ATTENTION, BIAS, EMBEDDING, MLP, POSITION, Family, Writer

BLOCK = "transformer.h.{layer}."
GPT2 = Family(
    label="gpt2",
    model_types=("gpt2",),
    ties_by_default=True,
    optional_prefix="transformer.",
    writers=(
        Writer("transformer.wte.weight", EMBEDDING, axis=-1),
        Writer("transformer.wpe.weight", POSITION, axis=-1),
        Writer(BLOCK + "attn.c_proj.weight", ATTENTION, axis=-1),
        Writer(BLOCK + "attn.c_proj.bias", BIAS, axis=-1),
        Writer(BLOCK + "mlp.c_proj.weight", MLP, axis=-1),
        Writer(BLOCK + "mlp.c_proj.bias", BIAS, axis=-1),
    ),
    others=(
        *(BLOCK + f"{name}.{kind}" for name in ("ln_1", "ln_2", "attn.c_attn", "mlp.c_fc") for kind in ("weight", "bias")),
        *("transformer.ln_f.weight", "transformer.ln_f.bias"),
        *(BLOCK + "attn.bias", BLOCK + "attn.masked_bias"),
    ),
)
