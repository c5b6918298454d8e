"""The front of a sweep: who is on it, told from the definition by going through all pairs."""

import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.configs.load import load_config
from engine.errors import EngineError
from engine.sweep.figures import draw_front, draw_products
from engine.sweep.front import front


def stages(points: dict[str, tuple[float, float, float | None]]) -> list[dict[str, Any]]:
    found = []
    for name, (compliance, coherence, kl) in points.items():
        if kl is not None:
            found.append({"stage": "screen", "variant": name, "kind": "single", "kl": kl})
        row = {"stage": "selection", "variant": name, "kind": "single", "k": 1, "compliance": compliance, "coherence": coherence}
        found.append(row)
    return found


def names(points: dict[str, tuple[float, float, float | None]]) -> set[str]:
    return {row["variant"] for row in front(stages(points))}


def test_one_that_is_better_in_nothing_is_left_out() -> None:
    assert names({"a": (0.9, 0.9, 0.1), "b": (0.8, 0.9, 0.1), "c": (0.9, 0.8, 0.2)}) == {"a"}


def test_one_that_costs_less_stays() -> None:
    assert names({"a": (0.9, 0.9, 0.3), "b": (0.8, 0.8, 0.1)}) == {"a", "b"}


def test_equals_both_stay() -> None:
    assert names({"a": (0.5, 0.5, 0.1), "b": (0.5, 0.5, 0.1)}) == {"a", "b"}


def test_kl_counts_only_where_both_have_it() -> None:
    assert names({"a": (0.9, 0.9, 0.3), "b": (0.8, 0.8, None)}) == {"a"}


def test_the_front_of_random_points_is_what_no_other_beats() -> None:
    draw = random.Random(0)
    points = {f"p{n}": (draw.random(), draw.random(), draw.random()) for n in range(60)}
    beaten = {
        two
        for one, two in itertools.permutations(points, 2)
        if points[one][0] >= points[two][0] and points[one][1] >= points[two][1] and points[one][2] <= points[two][2]
    }
    assert names(points) == set(points) - beaten


def test_base_and_controls_are_not_chosen_among() -> None:
    rows = stages({"a": (0.1, 0.1, 0.9)})
    rows += [row | {"variant": kind, "kind": kind, "compliance": 1.0} for kind in ("base", "random", "shuffled") for row in rows]
    assert [row["variant"] for row in front(rows)] == ["a"]


def test_a_file_that_extends_a_sweeps_variant_has_a_name_of_its_own(tmp_path: Any) -> None:
    (tmp_path / "winner.toml").write_text('variant = "m-layer3"\nmodel.path = "m"\ndirections.layers = [3]\n')
    (tmp_path / "mine.toml").write_text('extends = "winner.toml"\nedit.alpha = 0.5\n')
    assert load_config(str(tmp_path / "winner.toml")).variant == "m-layer3"
    assert load_config(str(tmp_path / "mine.toml")).variant == "mine"


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Any) -> None:
    (tmp_path / "x.toml").write_text('variant = "a/b"\nmodel.path = "m"\ndirections.layers = [3]\n')
    with pytest.raises(EngineError, match="variant"):
        load_config(str(tmp_path / "x.toml"))


def drawable(name: str, kind: str) -> dict[str, Any]:
    """A stage's row whose coherence is 1 and whose interval ends a last digit below, as Wilson's does for some n."""
    row = {"stage": "selection", "variant": name, "kind": kind, "k": 1, "alpha": 1.0, "sources": ["last@3"]}
    for figure, value in {"compliance": 0.5, "coherence": 1.0, "product": 1.0}.items():
        row |= {figure: value, f"{figure}_low": value - 0.2, f"{figure}_high": value + 0.1 if value < 1 else math.nextafter(1, 0)}
    return row


@pytest.mark.parametrize("draw", [lambda rows, file: draw_front(rows, [rows[1]], file), draw_products])
def test_an_interval_that_ends_a_last_digit_below_its_figure_is_drawn(draw: Callable[..., None], tmp_path: Path) -> None:
    draw([drawable("base", "base"), drawable("layer3", "single")], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 1000
