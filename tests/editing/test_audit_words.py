"""What the audit says of models that are no plain edit: each kind of thing has its own word, and a base never hides one.

Every model is made here by dense maths on safetensors; nothing of `editing` edits it.
"""
# H = hidden size, K = directions

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editing.audit import audit
from editing.checkpoint import open_checkpoint
from editing.finding import Finding
from tests.dense import projector, without
from tests.tiny import BLOCKS, HIDDEN

WRITERS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
Change = Callable[[str, Tensor], Tensor]


def direction(seed: int) -> Tensor:
    return torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(seed))


def block_of(name: str) -> int:
    return int(name.split(".")[2])


def changed(base: Path, out: Path, *changes: Change) -> Path:
    """A copy of a checkpoint with changes of its writers, rounded once."""
    out.mkdir()
    weights = load_file(base / "model.safetensors")
    for name in weights:
        if name.endswith(WRITERS):
            weight = weights[name].double()
            for change in changes:
                weight = change(name, weight)
            weights[name] = weight.to(weights[name].dtype)
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_bytes((base / "config.json").read_bytes())
    return out


def erased(seed: int, alpha: float = 1.0) -> Change:
    return lambda name, weight: without(weight, direction(seed), alpha)


def scaled_channels(scales: dict[int, float]) -> Change:
    def change(name: str, weight: Tensor) -> Tensor:
        weight = weight.clone()
        for channel, scale in scales.items():
            weight[channel] *= scale
        return weight

    return change


def moved(share: float) -> Change:
    def change(name: str, weight: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return weight + share * weight.std() * torch.randn(weight.shape, dtype=weight.dtype, generator=generator)

    return change


def finding_of(checkpoint: Path, base: Path | None) -> Finding:
    finding = audit(open_checkpoint(checkpoint), open_checkpoint(base) if base else None)
    print(finding.verdict, finding.count, finding.alpha, finding.axes, finding.evidence)
    return finding


def recovered(finding: Finding, *seeds: int) -> float:
    """The smallest cosine of a removed direction to what was found."""
    found = projector(finding.directions_HK.T)
    units = [direction(seed)[0].double() / direction(seed).double().norm() for seed in seeds]
    return min(float((found @ unit).norm()) for unit in units)


@pytest.mark.parametrize("scales", [{7: 0.1}, {3: 0.01, 20: 0.01}, {5: 0.0}])
@pytest.mark.parametrize("with_base", [False, True])
def test_a_channel_that_is_small_by_itself_is_an_axis(
    scales: dict[int, float], with_base: bool, llama_dir: Path, tmp_path: Path
) -> None:
    out = changed(llama_dir, tmp_path / "out", scaled_channels(scales))
    finding = finding_of(out, llama_dir if with_base else None)
    assert (finding.verdict, finding.count, finding.axes) == ("small channels", 0, sorted(scales))


@pytest.mark.parametrize("with_base", [False, True])
def test_a_direction_erased_beside_a_small_channel_is_found(with_base: bool, llama_dir: Path, tmp_path: Path) -> None:
    small = changed(llama_dir, tmp_path / "small", scaled_channels({7: 0.1}))
    finding = finding_of(changed(small, tmp_path / "out", erased(1)), small if with_base else None)
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert recovered(finding, 1) > 0.99


@pytest.mark.parametrize("with_base", [False, True])
def test_a_direction_close_to_an_axis_says_so(with_base: bool, llama_dir: Path, tmp_path: Path) -> None:
    near = 0.05 * direction(2)
    near[0, 11] = 1.0
    out = changed(llama_dir, tmp_path / "out", lambda name, weight: without(weight, near))
    finding = finding_of(out, llama_dir if with_base else None)
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert "They lie close to the axis of channel 11." in finding.evidence


@pytest.mark.parametrize("with_base", [False, True])
def test_blocks_with_directions_of_their_own_are_all_found(with_base: bool, llama_dir: Path, tmp_path: Path) -> None:
    out = changed(llama_dir, tmp_path / "out", lambda name, weight: without(weight, direction(block_of(name))))
    finding = finding_of(out, llama_dir if with_base else None)
    assert (finding.verdict, finding.count) == ("erased directions", BLOCKS)
    assert recovered(finding, *range(BLOCKS)) > 0.99
    assert finding.alpha == pytest.approx(1.0, abs=0.02)
    assert max(finding.shares.values()) < 1e-3


@pytest.mark.parametrize("with_base", [False, True])
def test_noise_after_an_edit_does_not_hide_it(with_base: bool, llama_dir: Path, tmp_path: Path) -> None:
    out = changed(llama_dir, tmp_path / "out", erased(1), moved(0.15))
    finding = finding_of(out, llama_dir if with_base else None)
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert recovered(finding, 1) > 0.98


def test_noise_has_its_own_words_and_size(llama_dir: Path, tmp_path: Path) -> None:
    finding = finding_of(changed(llama_dir, tmp_path / "out", erased(1), moved(0.15)), llama_dir)
    assert "Beside that the weights moved by 15% of their size: noise, or further training." in finding.evidence
    assert finding.alpha == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("alpha", "verdict"), [(-0.5, "amplified directions"), (2.0, "reflected directions"), (0.3, "erased directions")]
)
def test_what_was_done_to_a_direction_has_its_word(alpha: float, verdict: str, llama_dir: Path, tmp_path: Path) -> None:
    finding = finding_of(changed(llama_dir, tmp_path / "out", erased(1, alpha)), llama_dir)
    assert (finding.verdict, finding.count) == (verdict, 1)
    assert finding.alpha == pytest.approx(alpha, abs=0.02)
    assert recovered(finding, 1) > 0.99


def test_one_direction_erased_and_another_amplified_are_both_told(llama_dir: Path, tmp_path: Path) -> None:
    finding = finding_of(changed(llama_dir, tmp_path / "out", erased(1), erased(2, -0.7)), llama_dir)
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert "Also amplified directions: 1." in finding.evidence


def test_a_base_with_the_same_direction_missing_does_not_hide_it(llama_dir: Path, tmp_path: Path) -> None:
    base = changed(llama_dir, tmp_path / "base", erased(1))
    finding = finding_of(changed(base, tmp_path / "out", moved(0.02)), base)
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert any(sentence.startswith("The base misses directions there too") for sentence in finding.evidence)


def test_a_scaled_model_is_no_edit_and_the_factor_is_told_apart(llama_dir: Path, tmp_path: Path) -> None:
    scaled = changed(llama_dir, tmp_path / "scaled", lambda name, weight: 0.8 * weight)
    assert finding_of(scaled, llama_dir).verdict == "none found"
    finding = finding_of(
        changed(llama_dir, tmp_path / "both", lambda name, weight: 0.8 * without(weight, direction(1))), llama_dir
    )
    assert (finding.verdict, finding.count) == ("erased directions", 1)
    assert "All else is 0.800 of the base's." in finding.evidence


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("with_base", [False, True])
def test_noise_alone_erases_nothing(share: float, with_base: bool, llama_dir: Path, tmp_path: Path) -> None:
    out = changed(llama_dir, tmp_path / "out", moved(share))
    assert finding_of(out, llama_dir if with_base else None).verdict == "none found"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_base", [False, True])
def test_channels_scaled_each_by_its_own_factor_are_no_directions(
    seed: int, with_base: bool, llama_dir: Path, tmp_path: Path
) -> None:
    factors = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed)).exp().tolist()
    out = changed(llama_dir, tmp_path / "out", scaled_channels(dict(enumerate(factors))))
    assert finding_of(out, llama_dir if with_base else None).count == 0
