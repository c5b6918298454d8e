"""A variant as vLLM's workers take it, and what they answer (`engine.inference.vllm_worker`)."""

from collections.abc import Sequence
from typing import Any

from editing.errors import EditError
from engine.errors import EngineError, SwapFailed
from engine.models.variant import Variant


def arguments_of(variant: Variant) -> tuple[str, bytes | None, dict[str, float], bool]:
    """A variant as `hotswap_apply` takes it: its hash, its basis as the bytes of a safetensors file, alphas, keep_norms."""
    if variant.edit is None:
        return variant.hash, None, {}, False
    from safetensors.torch import save

    return variant.hash, save({"basis": variant.edit.basis_HK.contiguous()}), variant.alphas, variant.edit.keep_norms


def checked_answers(answers: Sequence[dict[str, Any]], variant_hash: str) -> list[dict[str, Any]]:
    """Every rank's answer to a call about a variant.

    Raises EngineError for an error, SwapFailed where the probe found other weights, and for the answer to another call.
    """
    for rank, answer in enumerate(answers):
        if answer["variant_hash"] != variant_hash:
            raise SwapFailed(f"Rank {rank} answered for variant {answer['variant_hash']}, not for {variant_hash}.")
        if "error" in answer:
            kind = SwapFailed if answer["error"] == SwapFailed.__name__ else EngineError
            where = f"rank {rank}: " if len(answers) > 1 else ""
            own = answer["error"] in (SwapFailed.__name__, EngineError.__name__, EditError.__name__)
            raise kind(f"{where}{answer['message'] if own else answer['error'] + ': ' + answer['message']}")
    return list(answers)
