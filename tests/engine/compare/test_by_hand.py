"""The five edits of SmolLM2 by hand, looked at: what the README's table says of each. Two minutes, most of them directions."""

from pathlib import Path

import pytest

from editing.checkpoint import open_checkpoint
from editing.forensics import forensics_of
from editing.replacement import replacement_of, values_of
from tests.engine.compare.by_hand import make_edits

pytestmark = pytest.mark.slow
SAID = {
    "rows-kept": "directions taken out of what is written, rows' norms kept (60 tensors in 30 blocks)",
    "own-direction-a-layer": "each block's own direction projected out (all) (60 tensors in 30 blocks)",
    "one-layer": "1 direction projected out (all) (2 tensors in block 22)",
    "lora-merged": "a low-rank update (rank up to 8), as a merged LoRA is, (60 tensors in 30 blocks)",
    "float16-padded": "the base itself, stored in another type and with other rows of the vocabulary",
    "lora": "a LoRA of rank 8 (60 tensors in 30 blocks)",
}


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hand")
    make_edits(out)
    return out


@pytest.mark.parametrize("name", SAID)
def test_an_edit_by_hand_is_named(edits: Path, smollm2_dir: Path, name: str) -> None:
    base = open_checkpoint(smollm2_dir)
    found = replacement_of(edits / name, base)
    assert forensics_of(found, values_of(found.directory, found.form, base), base).looks_like == SAID[name]
