"""Residual streams that are not finite: the first layer where it happens, and why, before anything is made of them."""
# L = decoder blocks, H = hidden size

import torch
from torch import Tensor, nn

from extraction.errors import ExtractionError


def check_finite(model: nn.Module, resid_LXH: Tensor) -> None:
    """Raise ExtractionError for residual streams (L+1, ..., H) of a model that hold NaN or infinity: first layer and cause."""
    finite_L = resid_LXH.isfinite().flatten(1).all(dim=1)
    if not finite_L.all():
        layer = int((~finite_L).nonzero()[0])
        raise ExtractionError(f"The residual stream at layer {layer} is not finite: {_cause(model)}")


def _cause(model: nn.Module) -> str:
    for name, parameter in model.named_parameters():
        if parameter.device.type != "meta" and not parameter.isfinite().all():
            return f"the weight {name} holds NaN or infinity. The checkpoint is damaged: copy or download it again."
    dtype = next(model.parameters()).dtype
    if dtype == torch.float16:
        return "it overflows float16, which ends at 65504. Use --set model.dtype=bfloat16, or float32."
    name = str(dtype).removeprefix("torch.")
    return f"it overflows {name}, though every weight is finite. See whether config.json belongs to the weights."
