"""The screen's filters, its early stop, and the folded model it reads."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.configs.schema import SweepConfig
from engine.errors import EngineError
from engine.evaluate.probing import too_low
from engine.models.folded import FoldedModel
from engine.sweep.screen import check_survivors, verdicts, with_one_kept
from tests.tiny import HIDDEN, tiny_model

CONFIG = SweepConfig(keep=2, subspaces=[])


def row(name: str, layer: int, bypass: float | None, induce: float, kl: float) -> dict[str, Any]:
    return {"variant": name, "position": "last", "layer": layer, "bypass": bypass, "induce": induce, "kl": kl, "n": 32}


def test_the_papers_filters_decide_and_the_strongest_bypass_goes_on() -> None:
    rows = [
        row("deep", 24, -9, 1, 0.01),
        row("noisy", 5, -9, 1, 0.2),
        row("weak", 6, -9, -0.1, 0.01),
        row("nan", 6, -9, 1, math.nan),
        row("c", 7, -1, 1, 0.05),
        row("a", 8, -5, 1, 0.1),
        row("b", 9, -3, 0.1, 0.02),
    ]
    found = verdicts(rows, CONFIG, num_layers=30)
    assert [r["variant"] for r in found if r["kept"]] == ["a", "b"]
    reasons = {r["variant"]: r["reason"] for r in found}
    assert reasons["deep"] == "depth 0.80 (limit 0.8)"
    assert reasons["noisy"] == "KL 0.200 (limit 0.1)" and reasons["nan"].startswith("KL nan")
    assert reasons["weak"] == "induces -0.10 (limit 0)" and reasons["c"] == "2 directions bypass more"


def test_all_alphas_of_a_direction_go_on_and_as_many_directions_as_the_largest_top_needs() -> None:
    rows = [row(f"{layer}-a{alpha}", layer, -layer * alpha, 1, 0.01) for layer in range(1, 8) for alpha in (0.5, 1.0)]
    found = verdicts(rows, SweepConfig(keep=2, subspaces=["top3"]), num_layers=30)
    assert {r["variant"] for r in found if r["kept"]} == {f"{layer}-a{alpha}" for layer in (5, 6, 7) for alpha in (0.5, 1.0)}


def test_nothing_left_is_said_with_what_came_nearest() -> None:
    rows = verdicts([row("a", 3, -1, -2, 0.5), row("b", 4, -1, -1, 0.3)], CONFIG, 30)
    message = r"the lowest KL is 0\.300 \(b\), the highest induce -1\.00 \(b\).*--max-kl.*--exhaustive"
    with pytest.raises(EngineError, match=message):
        check_survivors(rows, CONFIG)


def test_half_of_the_prompts_settle_only_what_is_far_below_a_limit() -> None:
    spread = torch.rand(16, generator=torch.Generator().manual_seed(0)).double() * 0.1
    assert too_low(-1 + spread, 0.0) and too_low(-(0.5 + spread), -0.1)
    assert not too_low(-0.05 + spread, 0.0)  # mean 0.00, at the limit: more prompts are asked
    assert not too_low(spread[:1] - 9, 0.0)


def test_a_folded_model_has_the_bits_that_the_writer_writes_and_goes_back(llama_dir: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(llama_dir)
    plan = plan_edit(checkpoint)
    edit = Edit(orthonormal_basis(torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(0))), 0.7)
    write_edited(checkpoint, plan, edit, tmp_path / "out", record={}, card=lambda proofs: "")
    written, base = load_file(tmp_path / "out" / "model.safetensors"), load_file(llama_dir / "model.safetensors")
    model = tiny_model("llama")
    folded = FoldedModel(model, checkpoint, plan)
    folded.fold(edit)
    changed = [name for name, value in written.items() if not torch.equal(value, base[name])]
    assert len(changed) == len(plan.edited) == 6
    assert all(torch.equal(model.get_parameter(name), value) for name, value in written.items())
    folded.fold(None)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in base.items())


def test_a_control_of_which_nothing_passes_goes_on_with_its_strongest_bypass() -> None:
    rows = [row("a", 2, 0.5, -3.0, 0.9), row("b", 3, -0.5, -3.0, 0.9)]
    judged = with_one_kept(verdicts(rows, CONFIG, 10))
    assert [one["variant"] for one in judged if one["kept"]] == ["b"]


def test_a_control_that_passes_is_judged_as_any_candidate() -> None:
    judged = verdicts([row("a", 2, 0.5, 3.0, 0.01), row("b", 3, -0.5, -3.0, 0.9)], CONFIG, 10)
    assert with_one_kept(judged) == judged
