"""Why a family does not know a checkpoint's tensors: the cause is told from their names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from editing.checkpoint import open_checkpoint
from editing.families import FAMILIES
from editing.naming import why_unknown

LLAMA = FAMILIES["llama"]


def unknown(names: list[str]) -> list[str]:
    return [name for name in names if LLAMA.classify(name, 3) is None]


def behind(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (behind("_orig_mod."), "behind the prefix '_orig_mod.': torch.compile writes it"),
        (behind("module."), "behind the prefix 'module.': DistributedDataParallel"),
        (behind("base_model.model."), "behind the prefix 'base_model.model.': PEFT writes it"),
        (behind("language_model."), "behind the prefix 'language_model.': a multimodal model's text tower has it"),
        (behind("pretrained_model."), "behind the prefix 'pretrained_model.': TRL's"),
        (behind("wrapped.inside."), "behind the prefix 'wrapped.inside.': no model of this family has it"),
        (lambda name: name.removeprefix("model."), "without the prefix 'model.': they are of the bare model"),
    ],
)
def test_a_prefix_that_all_names_share_or_lack_is_named(llama_dir: Path, change: Callable[[str], str], cause: str) -> None:
    names = unknown([change(name) for name in open_checkpoint(llama_dir).tensors])
    assert cause in why_unknown(LLAMA, names)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("v_head.summary.weight", "a value head (v_head)"),
        ("score.weight", "a classification head (score)"),
        ("mtp.layers.0.mlp.down_proj.weight", "a multi-token prediction head (mtp)"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "buffers of an older transformers"),
        ("model.layers.0.self_attn.o_proj.qweight", "quantised weights"),
        ("model.layers.0.self_attn.o_proj.lora_A.default.weight", "a LoRA's factors"),
        ("vision_tower.encoder.weight", "a multimodal model"),
        ("model.layers.0.mlp.w9.weight", "of no layout that family llama"),
    ],
)
def test_a_part_that_does_not_belong_is_named(name: str, cause: str) -> None:
    assert cause in why_unknown(LLAMA, [name])


@pytest.mark.parametrize("label", sorted(FAMILIES))
def test_every_family_gives_one_sentence(label: str) -> None:
    assert why_unknown(FAMILIES[label], ["x"]).count(". ") == 0
