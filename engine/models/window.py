"""How many tokens a model takes: its window and its vocabulary, each decided here once."""

from typing import Any

from editing.checkpoint import Checkpoint
from editing.plan import family_of
from editing.tying import embedding_name
from engine.errors import EngineError

WINDOW_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length")
ORIGINAL = "original_max_position_embeddings"
UNSAID = 2048  # what vLLM assumes too where config.json has none of the keys
LONGROPE = ("longrope", "su")
CHOOSES_BY_LENGTH = (*LONGROPE, "dynamic")


def window_of(checkpoint: Checkpoint) -> int:
    """Tokens of a prompt and its response that the model has positions for: the least that config.json names."""
    config = checkpoint.text_config
    found = [value for key in WINDOW_KEYS if isinstance(value := config.get(key), int) and value > 0]
    return min(found, default=UNSAID)


def vocabulary_of(checkpoint: Checkpoint) -> int:
    """Rows of the embedding: a token id beyond them has no vector."""
    return checkpoint.tensors[embedding_name(checkpoint, family_of(checkpoint))].shape[0]


def check_engine_window(checkpoint: Checkpoint, asked: int) -> None:
    """Raise EngineError for an engine's window beyond which vLLM gives all prompts the frequencies of long ones."""
    switch = switch_of(checkpoint)
    if switch is not None and _kind(checkpoint) in LONGROPE and asked > switch:
        raise EngineError(
            f"vllm.max_model_len = {asked}: beyond {switch} vLLM gives every prompt of this model the rotary frequencies of long "
            f"ones, and directions of shorter prompts are measured with the short ones. Set {switch} or less."
        )


def switch_of(checkpoint: Checkpoint) -> int | None:
    """Tokens beyond which the rotary frequencies depend on a prompt's length; None where they never do."""
    config = checkpoint.text_config
    if _kind(checkpoint) not in CHOOSES_BY_LENGTH:
        return None
    named = (_scaling(checkpoint).get(ORIGINAL), config.get(ORIGINAL))
    return next((value for value in named if isinstance(value, int) and value > 0), window_of(checkpoint))


def _kind(checkpoint: Checkpoint) -> Any:
    scaling = _scaling(checkpoint)
    return scaling.get("rope_type", scaling.get("type"))


def _scaling(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.text_config
    found = config.get("rope_parameters") or config.get("rope_scaling")
    return found if isinstance(found, dict) else {}
