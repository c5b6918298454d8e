"""Phi-3.5-MoE: Mixtral's tensors; norms and projections with biases, those of o_proj written."""

from dataclasses import replace

from editing.families.llama import O_BIAS, QKV_BIASES
from editing.families.mixtral import MIXTRAL
from editing.families.stablelm import NORM_BIASES

PHIMOE = replace(
    MIXTRAL,
    label="phimoe",
    model_types=("phimoe",),
    writers=(*MIXTRAL.writers, O_BIAS),
    others=(*MIXTRAL.others, *QKV_BIASES, *NORM_BIASES, "lm_head.bias"),
)
