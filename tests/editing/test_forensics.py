"""What a change shows of how it was made: edits by hand with other tools' methods, on a tiny model with known directions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.errors import EditError
from editing.forensics import Forensics, angles, forensics_of, inside
from editing.replacement import replacement_of, values_of
from tests.edited import changed_copy, is_writer, layer_of, with_row_norms, without, write_lora
from tests.tiny import BLOCKS, save_tiny

WIDE = {"hidden_size": 128, "intermediate_size": 240, "head_dim": 32}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base"), sizes=WIDE)


def direction(seed: int) -> torch.Tensor:
    found = torch.randn(WIDE["hidden_size"], generator=torch.Generator().manual_seed(seed))
    return found / found.norm()


def looked_at(folder: Path, base: Path) -> Forensics:
    checkpoint = open_checkpoint(base)
    replacement = replacement_of(folder, checkpoint)
    return forensics_of(replacement, values_of(folder, replacement.form, checkpoint), checkpoint)


def one_everywhere(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return without(tensor, direction(1)) if is_writer(name) else tensor


def own_of_each_layer(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return without(tensor, direction(10 + layer_of(name))) if is_writer(name) else tensor


def norms_kept(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return with_row_norms(tensor, direction(1)) if is_writer(name) else tensor


def one_layer(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return without(tensor, direction(1)) if is_writer(name) and layer_of(name) == 1 else tensor


def low_rank(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not name.endswith(("q_proj.weight", "up_proj.weight", "down_proj.weight")):
        return tensor
    generator = torch.Generator().manual_seed(len(name))
    left, right = torch.randn(len(tensor), 3, generator=generator), torch.randn(3, tensor.shape[1], generator=generator)
    return (tensor.float() + 0.3 * tensor.float().std() * left @ right).to(tensor.dtype)


def trained(name: str, tensor: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    return (tensor.float() + 0.1 * tensor.float().std() * noise).to(tensor.dtype) if tensor.dim() == 2 else tensor


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_everywhere, f"1 direction projected out (all) ({2 * BLOCKS} tensors in {BLOCKS} blocks)"),
        (own_of_each_layer, f"each block's own direction projected out (all) ({2 * BLOCKS} tensors in {BLOCKS} blocks)"),
        (norms_kept, f"directions taken out of what is written, rows' norms kept ({2 * BLOCKS} tensors in {BLOCKS} blocks)"),
        (one_layer, "1 direction projected out (all) (2 tensors in block 1)"),
        (low_rank, f"a low-rank update (rank up to 3), as a merged LoRA is, ({3 * BLOCKS} tensors in {BLOCKS} blocks)"),
        (lambda name, tensor: tensor.half(), "the base itself, stored in another type"),
        (lambda name, tensor: tensor, "the base itself: no tensor differs"),
    ],
)
def test_a_hand_made_edit_is_named(
    base: Path, tmp_path: Path, change: Callable[[str, torch.Tensor], torch.Tensor], words: str
) -> None:
    assert looked_at(changed_copy(base, tmp_path / "other", change), base).looks_like == words


def test_training_is_no_projection(base: Path, tmp_path: Path) -> None:
    found = looked_at(changed_copy(base, tmp_path / "other", trained), base)
    assert found.looks_like.startswith("a change of full rank")


def test_the_shared_space_is_the_direction_that_was_taken_out(base: Path, tmp_path: Path) -> None:
    found = looked_at(changed_copy(base, tmp_path / "other", one_everywhere), base)
    assert inside(found.space_HK, direction(1)[None])[0] == pytest.approx(1, abs=1e-3)


def test_a_rank_one_edit_has_an_effective_rank_near_one(base: Path, tmp_path: Path) -> None:
    found = looked_at(changed_copy(base, tmp_path / "other", one_everywhere), base)
    assert max(change.effective_rank or 9 for change in found.changes) < 1.2


def test_half_an_edit_is_half_removed(base: Path, tmp_path: Path) -> None:
    def half(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return ((one_everywhere(name, tensor).float() + tensor.float()) / 2).to(tensor.dtype)

    assert "(0.50 of them)" in looked_at(changed_copy(base, tmp_path / "other", half), base).looks_like


def test_angles_are_those_of_rotated_axes() -> None:
    one = torch.eye(5)[:, :2]
    turned = torch.tensor([0.0, 30.0]).deg2rad()
    other = torch.stack([torch.eye(5)[:, 0], turned.cos()[1] * torch.eye(5)[:, 1] + turned.sin()[1] * torch.eye(5)[:, 4]], 1)
    assert angles(one, other) == pytest.approx([0, 30], abs=1e-4)


def test_a_lora_is_named_with_its_rank(base: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    rows, width = open_checkpoint(base).tensors["model.layers.1.mlp.down_proj.weight"].shape
    pair = (torch.randn(2, width, generator=generator), torch.randn(rows, 2, generator=generator))
    factors = {"model.layers.1.mlp.down_proj": pair}
    found = looked_at(write_lora(tmp_path / "lora", base, factors, 2, 2.0), base)
    assert found.looks_like == "a LoRA of rank 2 (1 tensor in block 1)"


def test_a_checkpoint_of_another_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    other = save_tiny("qwen3", tmp_path / "qwen3", sizes=WIDE)
    with pytest.raises(EditError, match=r"another architecture than the base .*: model type qwen3, expected llama"):
        replacement_of(other, open_checkpoint(base))


def test_a_checkpoint_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    def other_weights(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))).to(tensor.dtype)

    with pytest.raises(EditError, match="was made from another base"):
        replacement_of(changed_copy(base, tmp_path / "other", other_weights), open_checkpoint(base))


def test_a_padded_vocabulary_takes_an_engine_of_its_own(base: Path, tmp_path: Path) -> None:
    def padded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        is_table = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        return torch.cat([tensor, torch.zeros(7, tensor.shape[1], dtype=tensor.dtype)]) if is_table else tensor

    other = changed_copy(base, tmp_path / "other", padded, {"vocab_size": 108})
    assert "has 108 rows, the base's 101" in replacement_of(other, open_checkpoint(base)).apart


def test_an_adapter_of_another_width_is_refused(base: Path, tmp_path: Path) -> None:
    factors = {"model.layers.0.mlp.down_proj": (torch.zeros(1, 5), torch.zeros(7, 1))}
    with pytest.raises(EditError, match=r"changes model.layers.0.mlp.down_proj.weight with shape \(7, 5\)"):
        replacement_of(write_lora(tmp_path / "lora", base, factors, 1, 1.0), open_checkpoint(base))
