"""GLM-4.5 and 4.6: DeepSeek-V3's experts under Qwen3's attention."""

from dataclasses import replace

from editing.families.deepseek_v3 import DEEPSEEK_V3
from editing.families.qwen3 import QWEN3

GLM4_MOE = replace(
    DEEPSEEK_V3,
    label="glm4_moe",
    model_types=("glm4_moe",),
    others=(*DEEPSEEK_V3.others, *QWEN3.others),
)
