"""A new estimator is one function and its name: the example of extraction's README."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engine.configs.load import validate
from engine.errors import EngineError
from extraction.directions import Streams, directions_from
from extraction.estimators import ESTIMATORS, estimate

EXAMPLE = '''
from torch import Tensor

from extraction.estimators import ESTIMATORS


def median(declined_NH: Tensor, answered_NH: Tensor) -> Tensor:
    """The median of declined minus the median of answered, component by component: (H,), at unit length."""
    difference_H = declined_NH.median(dim=0).values - answered_NH.median(dim=0).values
    return difference_H / difference_H.norm()


ESTIMATORS["median"] = median
'''
LAYERS, PAIRS, HIDDEN = 3, 41, 12


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example, for one test."""
    before = dict(ESTIMATORS)
    exec(EXAMPLE, {})
    yield
    ESTIMATORS.clear()
    ESTIMATORS.update(before)


@pytest.fixture(scope="module")
def sides() -> tuple[Tensor, Tensor]:
    """Streams that differ along the first component, and one declined prompt that is far from all."""
    generator = torch.Generator().manual_seed(0)
    declined, answered = (torch.randn(LAYERS, PAIRS, HIDDEN, generator=generator, dtype=torch.float64) for _ in range(2))
    declined[..., 0] += 8
    declined[:, 0, 5] += 10_000
    return declined, answered


def config(estimator: str) -> dict[str, object]:
    return {"variant": "tiny", "model": {"path": "m"}, "directions": {"layers": [1], "estimator": estimator}}


def test_an_estimator_that_is_not_there_is_refused_with_the_names() -> None:
    with pytest.raises(EngineError, match=r"directions.estimator = 'median': expected one of mean_difference, projected"):
        validate(config("median"), "test")


def test_a_configuration_takes_it_by_its_name(added: None) -> None:
    assert validate(config("median"), "test").directions.estimator == "median"


def test_its_directions_are_the_medians_difference(added: None, sides: tuple[Tensor, Tensor]) -> None:
    difference = sides[0].median(dim=1).values - sides[1].median(dim=1).values
    expected = difference / difference.norm(dim=-1, keepdim=True)
    assert torch.allclose(estimate("median", *sides), expected)


def test_one_far_prompt_does_not_lead_it_as_it_leads_the_mean(added: None, sides: tuple[Tensor, Tensor]) -> None:
    cosines = {name: float(estimate(name, *sides)[1, 0]) for name in ("mean_difference", "median")}
    print(f"cosine to the true direction with one far prompt: {cosines}")
    assert cosines["mean_difference"] < 0.1 < 0.95 < cosines["median"]


def test_directions_carry_its_name_and_what_it_gives(added: None, sides: tuple[Tensor, Tensor]) -> None:
    directions = directions_from(Streams(*sides), "last", "median")
    assert directions.estimator == "median" and torch.equal(directions.direction_LH, estimate("median", *sides))
