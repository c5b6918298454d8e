"""A variant and an engine's scope as vLLM's workers take them, and what they answer (`engine.inference.vllm_worker`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from editing.errors import EditError
from editing.plan import Scope
from engine.errors import EngineError, SwapFailed

if TYPE_CHECKING:  # it imports torch, and a run's inputs are read without
    from engine.models.variant import Variant

NO_UNTYING = (
    "edit.untie is not taken up by a running engine, which holds embedding and output head as one tensor. Write the variant "
    "with bin/edit and generate with plain vLLM from there, or leave it out: the head then changes with the embedding."
)


def opening_of(base_dir: str, *scopes: Scope) -> tuple[str, bool, bool]:
    """The base as `hotswap_open` takes it: its folder, and whether any of the scopes has embeddings, or output biases."""
    return base_dir, any(scope.embeddings for scope in scopes), any(scope.biases for scope in scopes)


def check_scope(scope: Scope, opened: Scope) -> None:
    """Raise EngineError for a variant's scope that is beyond the one an engine was opened for."""
    if scope.untie:
        raise EngineError(NO_UNTYING)
    for part in ("embeddings", "biases"):
        if getattr(scope, part) and not getattr(opened, part):
            raise EngineError(f"This engine was opened without edit.{part}: they are not swapped in it. Open one with them.")


def arguments_of(variant: "Variant") -> tuple[str, bytes | None, dict[str, float], bool]:
    """A variant as `hotswap_apply` takes it: its hash, its basis as the bytes of a safetensors file, alphas, keep_norms."""
    if variant.edit is None:
        return variant.hash, None, {}, False
    from safetensors.torch import save

    return variant.hash, save({"basis": variant.edit.basis_HK.contiguous()}), variant.alphas, variant.edit.keep_norms


def call_of(variant: "Variant") -> tuple[str, tuple[Any, ...]]:
    """The worker's method that takes a variant up, and its arguments."""
    if (replacement := variant.replacement) is None:
        return "hotswap_apply", arguments_of(variant)
    return "hotswap_replace", (variant.hash, str(replacement.directory), replacement.form, list(replacement.names))


def check_taken_up(variant: "Variant") -> None:
    """Raise EngineError for a checkpoint that no engine on its base can hold, with the reason."""
    if variant.replacement is not None and variant.replacement.apart:
        raise EngineError(
            f"{variant.replacement.directory} cannot be taken up by an engine on its base: {variant.replacement.apart}. Give it "
            "an engine of its own with --model, or compare it with bin/compare, which does."
        )


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
