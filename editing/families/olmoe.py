"""OLMoE: Qwen3-MoE's tensors, experts in every block."""

from dataclasses import replace

from editing.families.qwen3_moe import QWEN3_MOE

OLMOE = replace(QWEN3_MOE, label="olmoe", model_types=("olmoe",))
