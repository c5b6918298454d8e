"""Command A and Command R7B: Command R's tensors; most blocks attend to a window."""

from dataclasses import replace

from editing.families.cohere import COHERE

COHERE2 = replace(COHERE, label="cohere2", model_types=("cohere2",))
