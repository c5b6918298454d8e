"""How many tokens a model takes: its window and its vocabulary, each decided here once."""

from typing import Any

from editing.checkpoint import Checkpoint
from editing.plan import family_of
from editing.tying import embedding_name

WINDOW_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length")
UNSAID = 2048  # what vLLM assumes too where config.json has none of the keys
CHOOSES_BY_LENGTH = ("longrope", "su", "dynamic")


def window_of(checkpoint: Checkpoint) -> int:
    """Tokens of a prompt and its response that the model has positions for: the least that config.json names."""
    config = checkpoint.text_config
    found = [value for key in WINDOW_KEYS if isinstance(value := config.get(key), int) and value > 0]
    return min(found, default=UNSAID)


def vocabulary_of(checkpoint: Checkpoint) -> int:
    """Rows of the embedding: a token id beyond them has no vector."""
    return checkpoint.tensors[embedding_name(checkpoint, family_of(checkpoint))].shape[0]


def switch_of(checkpoint: Checkpoint) -> int | None:
    """Tokens beyond which the rotary frequencies depend on a prompt's length; None where they never do."""
    config = checkpoint.text_config
    scaling: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict) or scaling.get("rope_type", scaling.get("type")) not in CHOOSES_BY_LENGTH:
        return None
    original = scaling.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return original if isinstance(original, int) and original > 0 else window_of(checkpoint)
