"""Why a family does not know a checkpoint's tensors, told from their names alone: a wrapper's prefix, a head, an adapter.

One sentence for the message that refuses the checkpoint. It knows neither files nor weights.
"""

import re
from collections.abc import Iterator, Sequence

from editing.families.base import Family

# Prefixes that a wrapper puts before every name, and who does it.
WRAPPERS = {
    "_orig_mod.": "torch.compile writes it; save model._orig_mod instead",
    "_fsdp_wrapped_module.": "FSDP writes it; save the unwrapped model's state",
    "_forward_module.": "Lightning writes it; save the module inside it",
    "module.": "DistributedDataParallel and DeepSpeed write it; save model.module instead",
    "base_model.model.": "PEFT writes it; save what merge_and_unload returns",
    "pretrained_model.": "TRL's model with a value head writes it; save model.pretrained_model instead",
    "language_model.": "a multimodal model's text tower has it; save the text model by itself",
    "model.language_model.": "a multimodal model's text tower has it; save the text model by itself",
    "thinker.": "an omni model's text tower has it; save the text model by itself",
}
ANY_LAYERS = 1 << 20  # names are looked at, whatever the number of blocks
# What a name's part says, and what it means for an edit; the first that all names fit is told.
PARTS = (
    (
        r"lora_(A|B|embedding)|lora_magnitude",
        "a LoRA's factors are among the weights: merge the adapter (merge_and_unload), save that",
    ),
    (
        r"qweight|qzeros|g_idx|weight_scale|scale_inv|scales|absmax|quant_(map|state)|input_scale|weight_packed|SCB",
        "they are quantised weights: use the checkpoint before it was quantised",
    ),
    (r"v_head", "a value head (v_head) stands beside the model: save the model inside it without the head"),
    (r"score", "a classification head (score) takes the place of the output head: it is a classifier or a reward model"),
    (r"(reward|regression|value)_head|classifier|classification_head", "a head of a classifier or a reward model is among them"),
    (r"mtp|eh_proj|enorm|hnorm|nextn", "they belong to a multi-token prediction head (mtp): save the model without it"),
    (r"rotary_emb|inv_freq|masked_bias", "they are buffers of an older transformers: load the model and save it again"),
    (r"vision|visual|image|audio|multi_modal_projector|mm_projector|vision_tower", "they belong to a multimodal model"),
    (r"prompt_encoder|prefix_encoder|ia3_l|adapter", "they belong to an adapter: merge it, and save the merged model"),
)


def why_unknown(family: Family, names: Sequence[str]) -> str:
    """A sentence on why `family` does not list `names`, all of a checkpoint's unknown tensors, and what to do."""
    if (prefix := _shared_prefix(family, names)) is not None:
        by = WRAPPERS.get(prefix, "no model of this family has it; save the model without the wrapper around it")
        return f"All {len(names)} unknown names are known ones behind the prefix '{prefix}': {by}."
    if (prefix := _missing_prefix(family, names)) is not None:
        return (
            f"All {len(names)} unknown names are known ones without the prefix '{prefix}': they are of the bare model; "
            "load it with AutoModelForCausalLM and save it again."
        )
    meanings = [_meaning(name) for name in names]
    if told := [meaning for _, meaning in PARTS if meaning in meanings]:
        count = meanings.count(told[0])
        return f"{count} of {len(names)} unknown names, such as {names[meanings.index(told[0])]}, say why: {told[0]}."
    return (
        f"{len(names)} names, such as {names[0]}, are of no layout that family {family.label} has: the model may be of another "
        "family, or changed by its makers."
    )


def _shared_prefix(family: Family, names: Sequence[str]) -> str | None:
    """The shortest start of the first name without which the family knows every name that has it, and all have it."""
    parts = names[0].split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if all(name.startswith(prefix) and _is_known(family, name.removeprefix(prefix)) for name in names):
            return prefix
    return None


def _missing_prefix(family: Family, names: Sequence[str]) -> str | None:
    """What stands before the family's names, where with it every unknown name is known."""
    return next((prefix for prefix in _prefixes(family) if all(_is_known(family, prefix + name) for name in names)), None)


def _prefixes(family: Family) -> Iterator[str]:
    listed = [*(writer.name for writer in family.writers), *family.others]
    yield from sorted({f"{name.partition('.')[0]}." for name in listed if "." in name})


def _is_known(family: Family, name: str) -> bool:
    return family.classify(name, ANY_LAYERS) is not None


def _meaning(name: str) -> str:
    parts = re.split(r"[.]", name)
    return next((meaning for pattern, meaning in PARTS if any(re.match(f"(?:{pattern})", part) for part in parts)), "")
