"""The two forms of one edit, folded weights and adapter, and how far apart their next-token distributions are."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.adapter import merge_factors, read_adapter
from editing.apply import edited_tensor
from editing.plan import PlannedTensor
from engine.models.folded import FoldedModel
from engine.models.load import causal_model
from engine.models.variant import Variant
from engine.paths import write_json
from engine.runs.session import Session
from extraction.prefill import laid_out
from extraction.screening import kl_divergence, next_token_logprobs

NUM_PROMPTS = 16


def report_divergence(session: Session, variant: Variant, adapter: Path) -> dict[str, Any]:
    """KL(folded || adapter) of the next-token distribution after training prompts, in nats, into the adapter's edit_report.json.

    Both forms run in float32 from their stored, rounded tensors, so the figure is what the rounding of the forms costs.
    """
    edit = variant.edit
    assert edit is not None
    factors = read_adapter(adapter)
    prompts = [session.renderer.render(pair.declined) for pair in session.pairs[:NUM_PROMPTS]]
    model = causal_model(session.checkpoint, dtype=torch.float32)

    def folded(tensor: PlannedTensor) -> Tensor:
        return edited_tensor(session.checkpoint, tensor, edit)

    def adapted(tensor: PlannedTensor) -> Tensor:
        return merge_factors(session.checkpoint.read(tensor.name).float(), *factors[tensor.name])

    target, prefill = FoldedModel(model, session.checkpoint, variant.plan), laid_out(model, prompts)
    logprobs = []
    for make in (folded, adapted):
        for tensor in variant.plan.edited:
            target.set(tensor.name, make(tensor))
        logprobs.append(next_token_logprobs(model, prefill))
    divergence = kl_divergence(*logprobs)
    report = {"kl_mean": float(divergence.mean()), "kl_max": float(divergence.max()), "prompts": len(prompts), "unit": "nats"}
    write_json(adapter / "edit_report.json", report)
    return report
