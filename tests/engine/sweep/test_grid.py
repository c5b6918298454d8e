"""What a sweep tries, on the embedded model's checkpoint with made-up directions."""

from typing import Any

import pytest
import torch

from editing.errors import EditError
from engine.configs.load import load_config
from engine.errors import EngineError
from engine.runs.session import Session
from engine.sweep.grid import Grid
from engine.sweep.inputs import check_grid
from extraction.controls import Control
from extraction.directions import Directions

pytestmark = pytest.mark.usefixtures("smollm2_dir")
LAYERS, HIDDEN = 31, 576


def directions(seed: int, position: str = "last") -> Directions:
    generator = torch.Generator().manual_seed(seed)
    declined, answered = torch.randn(2, LAYERS, HIDDEN, generator=generator, dtype=torch.float64)
    return Directions(declined, answered, 10, position)


def grid(control: Control | None = None, **sweep: Any) -> Grid:
    session = Session(load_config("smollm2_135m_k1", {f"sweep.{key}": value for key, value in sweep.items()}))
    return Grid(session, {"last": directions(0), "last_instruction": directions(1, "last_instruction")}, control)


def removed(candidate: Any, vector: torch.Tensor) -> float:
    """The share of a vector that the candidate's basis holds."""
    basis = candidate.variant.edit.basis_HK
    return float((basis.T @ (vector / vector.norm())).norm())


def test_singles_are_every_position_layer_and_alpha_each_a_variant_of_its_own() -> None:
    made = grid(layers="3,7-8", alphas=[0.5, 1.0]).singles()
    assert len(made) == 2 * 3 * 2 == len({candidate.variant.hash for candidate in made}) == len({c.name for c in made})
    assert [c.name for c in made[:2]] == ["layer3-a0.5", "layer3-a1"]
    assert made[-1].sources == (("last_instruction", 8),) and made[-1].name == "layer8-last_instruction-a1"
    assert removed(made[0], directions(0).mean_difference_LH[3]) == pytest.approx(1)


def test_top_subspaces_span_the_best_directions_once_each_whatever_their_alpha() -> None:
    made = grid(layers="3-9", alphas=[0.5, 1.0], subspaces=["top3"])
    order = ("layer5-a1", "layer5-a0.5", "layer7-last_instruction-a1", "layer3-a1", "layer9-a0.5")
    ranked = [c for name in order for c in made.singles() if c.name == name]  # the other position's stays out
    top = made.best_of(ranked)
    assert [(c.name, c.k, c.layers) for c in top] == [("top3-a0.5", 3, [5, 3, 9]), ("top3-a1", 3, [5, 3, 9])]
    assert all(removed(top[0], directions(0).mean_difference_LH[layer]) == pytest.approx(1) for layer in (3, 5, 9))


def test_a_top_that_the_survivors_cannot_fill_is_left_out_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    made = grid(layers="3-9", subspaces=["top3", "top5"])
    assert [c.name for c in made.best_of(made.singles()[:4])] == ["top3"]
    assert "top5: left out, only 4 single directions at position last came this far" in capsys.readouterr().err
    made.directions["last"].declined_mean_LH[4] = (
        made.directions["last"].answered_mean_LH[4] + (made.directions["last"].mean_difference_LH[3])
    )
    assert made.best_of(made.singles()[:3]) == []  # layers 3 and 4 are one direction
    assert "top3: left out. top3: layer 4's direction (last) depends linearly" in capsys.readouterr().err


def test_listed_subspaces_take_their_layers() -> None:
    assert [(c.name, c.k) for c in grid(subspaces=["2-4", "3,9"]).listed()] == [("subspace2-3-4", 3), ("subspace3-9", 2)]


def test_a_controls_candidates_carry_its_name_and_kind_subspaces_too() -> None:
    made = grid(Control("shuffled", 3, 0), layers="3-9", subspaces=["top3"])
    found = [*made.singles()[:1], *made.best_of(made.singles())]
    assert [(c.name, c.kind, c.k) for c in found] == [("shuffled3-layer3", "shuffled", 1), ("shuffled3-top3", "shuffled", 3)]


def test_dependent_directions_are_named_with_how_close_they_are() -> None:
    made = grid(subspaces=["4-6"])
    made.directions["last"].declined_mean_LH[6] = made.directions["last"].answered_mean_LH[6] + (
        made.directions["last"].mean_difference_LH[4:6].sum(0)
    )
    with pytest.raises(
        EditError, match=r"subspace4-5-6: layer 6's direction \(last\) depends linearly .* has length \d\.\de-1\d"
    ):
        made.listed()


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"layers": "20-40"}, r"Layer 31 is out of range: .* has layers 0 to 30 .* Change sweep\.layers or --layers"),
        ({"subspaces": ["28-33"]}, r"Layer 31 is out of range: .* Change sweep\.subspaces \('28-33'\)"),
        ({"layers": "3-4", "subspaces": ["top5"]}, "top5 needs 5 single directions and the grid has 2 layers"),
        ({"layers": [0, 3], "subspaces": []}, "Layer 0 has no direction at last: that token is the same in"),
        ({"subspaces": ["0-15"], "positions": ["post_instruction:2"]}, "Layer 0 has no direction at post_instruction:2"),
    ],
)
def test_a_grid_that_cannot_be_tried_is_refused_before_a_model_loads(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_grid(grid(**sweep).session)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"layers": []}, "layers is empty, so there is nothing to try"),
        ({"alphas": []}, "alphas is empty"),
        ({"positions": ["first"]}, "unknown position 'first'"),
        ({"subspaces": ["best3"]}, "expected numbers such as 16,15,17 or 4-20"),
        ({"alphas": [float("nan")]}, "expected a finite number"),
        ({"alphas": [1, 1]}, "alphas names one more than once"),
        ({"subspaces": ["15-1"]}, "15-1 runs backwards"),
    ],
)
def test_an_empty_or_malformed_grid_is_refused_by_key(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        grid(**sweep)
