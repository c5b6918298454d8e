"""The residual stream as transformers itself gives it: the reference of the extraction tests. Imports nothing of the project."""
# L = layers, T = tokens, H = hidden size

import torch
from torch import Tensor, nn


def residual_stream(model: nn.Module, token_ids: list[int]) -> Tensor:
    """One sequence by itself, without a cache, (L+1, T, H): hidden_states[0..L-1], and layer L as the last block puts it out.

    hidden_states[-1] is behind the final norm, so that layer is hooked.
    """
    body = model.model if model.base_model is model else model.base_model
    blocks = getattr(body, "layers", None) or body.h
    last: list[Tensor] = []
    handle = blocks[-1].register_forward_hook(
        lambda module, args, output: last.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.inference_mode():
        states = body(input_ids=torch.tensor([token_ids]), use_cache=False, output_hidden_states=True).hidden_states
    handle.remove()
    return torch.stack([state[0] for state in (*states[:-1], last[0])])
