"""GLM-4-9B (transformers' glm): Llama's writers, biases on q, k and v; gate and up fused into gate_up_proj."""

from dataclasses import replace

from editing.families.llama import ATTENTION_INPUTS, BLOCK, LLAMA, NORMS, QKV_BIASES

GLM = replace(
    LLAMA,
    label="glm",
    model_types=("glm",),
    others=(*NORMS, *ATTENTION_INPUTS, *QKV_BIASES, BLOCK + "mlp.gate_up_proj.weight"),
)
