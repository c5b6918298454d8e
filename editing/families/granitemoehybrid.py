"""Granite 4 (hybrid): Mamba blocks among attention; experts and a shared MLP, or the shared MLP alone."""

from dataclasses import replace

from editing.families.base import BIAS, Writer, linear_writers
from editing.families.granitemoe import GRANITEMOE
from editing.families.llama import BLOCK

MIXER, SHARED = BLOCK + "mamba.", BLOCK + "shared_mlp."
STATE = ("A_log", "D", "dt_bias", "conv1d.weight", "conv1d.bias", "in_proj.weight", "in_proj.bias", "norm.weight")
GRANITEMOEHYBRID = replace(
    GRANITEMOE,
    label="granitemoehybrid",
    model_types=("granitemoehybrid", "granitemoeshared"),
    writers=(
        *GRANITEMOE.writers,
        *linear_writers(MIXER + "out_proj", SHARED + "output_linear"),
        Writer(MIXER + "out_proj.bias", BIAS, axis=-1),
    ),
    others=(*GRANITEMOE.others, *(MIXER + name for name in STATE), SHARED + "input_linear.weight"),
)
