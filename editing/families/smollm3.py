"""SmolLM3: Llama's tensors; some blocks have no rotary embedding, which is no tensor."""

from dataclasses import replace

from editing.families.llama import LLAMA

SMOLLM3 = replace(LLAMA, label="smollm3", model_types=("smollm3",), ties_by_default=True)
