"""A checkpoint's language model in transformers: of a model with several towers the text tower alone."""

import re
from typing import Any

from editing.checkpoint import Checkpoint
from editing.families.base import MODEL
from editing.plan import family_of
from editing.tying import KEY, head_of
from engine.errors import EngineError
from engine.vllm_compat import transformers_unchanged

HEAD = "lm_head.weight"


def causal_model(checkpoint: Checkpoint, **options: Any) -> Any:
    """The language model, ready to run. `options` are from_pretrained's.

    Raises EngineError, with transformers' own words, where it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    options |= {"trust_remote_code": False} | _tower_options(checkpoint)
    try:
        with transformers_unchanged():
            return AutoModelForCausalLM.from_pretrained(checkpoint.directory, **options).eval()
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as error:
        raise EngineError(
            f"transformers cannot load {checkpoint.directory} ({checkpoint.model_type}): {type(error).__name__}: {error}"
        ) from error


def parameter_name(checkpoint: Checkpoint, tensor: str) -> str:
    """The name that `causal_model` gives a tensor of the checkpoint."""
    for pattern, name in _renamed(checkpoint).items():
        if re.match(pattern, tensor):
            return re.sub(pattern, name, tensor, count=1)
    return tensor


def _tower_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Options that load a text tower as a model of its own; none for a model that is nothing else."""
    from transformers import AutoConfig

    family = family_of(checkpoint)
    if family.text_type == "":
        return {}
    settings = dict(checkpoint.text_config)
    own_type = settings.pop("model_type", None)
    config = AutoConfig.for_model(family.text_type or own_type, **{**settings, KEY: head_of(checkpoint, family).tied})
    return {"config": config, "key_mapping": _renamed(checkpoint)}


def _renamed(checkpoint: Checkpoint) -> dict[str, str]:
    """Patterns of the checkpoint's names, and what stands for them in the text tower by itself."""
    family = family_of(checkpoint)
    if family.text_type == "":
        return {}
    longest = sorted(family.prefixes, key=len, reverse=True)
    heads = {f"^{re.escape(head)}$": HEAD for head in family.heads if head != HEAD}
    return {f"^{re.escape(prefix)}": MODEL for prefix in longest if prefix != MODEL} | heads
