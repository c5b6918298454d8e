"""Where a study's hooks stand: on what writes to the stream, which behind a norm is the norm."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from engine.display.study_words import norms_notes
from engine.study.panel import projects_norms, write_modules
from tests.tiny import BLOCKS, save_tiny, tiny_model

ENDS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


def session_of(family: str, folder: Path) -> Any:
    return SimpleNamespace(plan=plan_edit(open_checkpoint(save_tiny(family, folder))))


@pytest.mark.parametrize("family", ENDS)
def test_hooks_stand_on_what_writes_to_the_stream(family: str, tmp_path: Path) -> None:
    expected = [f"model.layers.{layer}.{end}" for layer in range(BLOCKS) for end in ENDS[family]]
    assert write_modules(session_of(family, tmp_path), tiny_model(family)) == expected


@pytest.mark.parametrize(("family", "notes"), [("llama", 0), ("gemma2", 1), ("olmo2", 1)])
def test_a_study_says_where_it_hooks_norms_and_the_rollouts_fold(family: str, notes: int, tmp_path: Path) -> None:
    assert len(norms_notes({"norms": projects_norms(session_of(family, tmp_path))})) == notes
