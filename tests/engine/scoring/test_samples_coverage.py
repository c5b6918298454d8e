"""Five samples a prompt at one temperature: do 95 % intervals hold the true rate? With the figures that judging/README.md has.

A prompt's own rate is beta-distributed around the true one, its samples are independent given that. `sampled` names the clusters,
as a run does.
"""

import numpy as np
import pytest

from engine.runs.requests import Request, sampled
from judging.kinds import components
from judging.statistics import rate

SETS, SAMPLES = 1000, 5


def requests(prompts: int, kinds: int | None) -> list[Request]:
    categories = [""] * prompts if kinds is None else [f"kind {place % kinds}" for place in range(prompts)]
    return [Request(f"declined/{place:05d}", "test", "declined", kind, "x") for place, kind in enumerate(categories)]


def drawn(rng: np.random.Generator, prompts: int, kinds: int | None, share: float, concentration: float) -> np.ndarray:
    """Flags of every sample: prompts around their kind's rate, kinds around the true share."""
    of_kind = rng.beta(share * 20, (1 - share) * 20, kinds) if kinds else np.full(1, share)
    middle = of_kind[np.arange(prompts) % len(of_kind)]
    own = rng.beta(middle * concentration, (1 - middle) * concentration)
    return rng.random((prompts, SAMPLES)).__lt__(own[:, None]).ravel()


def coverage(prompts: int, kinds: int | None, share: float, *, clustered: bool) -> float:
    rng, held = np.random.default_rng(3), 0
    asked = sampled(requests(prompts, kinds), SAMPLES)
    clusters = [one.category for one in asked] if clustered else [""] * len(asked)
    for _ in range(SETS):
        found = rate(drawn(rng, prompts, kinds, share, 1.5).tolist(), clusters)
        assert found.low is not None and found.high is not None
        held += found.low <= share <= found.high
    return held / SETS


@pytest.mark.parametrize(("prompts", "kinds", "share"), [(60, None, 0.3), (60, None, 0.1), (110, 55, 0.3), (120, 12, 0.3)])
def test_intervals_over_prompts_and_kinds_hold_the_true_rate(prompts: int, kinds: int | None, share: float) -> None:
    found = coverage(prompts, kinds, share, clustered=True)
    print(f"{prompts} prompts x {SAMPLES}, kinds {kinds}, share {share}: {found:.3f}")
    assert 0.925 <= found <= 0.985


def test_samples_taken_for_prompts_do_not() -> None:
    found = coverage(60, None, 0.3, clustered=False)
    print(f"60 prompts x {SAMPLES}, each sample by itself: {found:.3f}")
    assert found < 0.85


def test_a_prompt_that_names_no_kind_is_the_kind_of_its_samples() -> None:
    assert {one.category for one in sampled(requests(2, None), 3)} == {"declined/00000", "declined/00001"}


def test_variance_within_and_between_prompts_is_that_of_the_draws() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 2.0, 4000)[:, None] + rng.normal(0, 1.0, (4000, 5))
    found = components(values.ravel().tolist(), [str(place) for place in range(4000) for _ in range(5)])
    assert found is not None
    assert np.allclose([found.between, found.within], [4.0, 1.0], rtol=0.06)


def test_equal_samples_have_no_variance_within() -> None:
    found = components([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert found is not None and found.within == 0.0


def test_one_sample_each_tells_no_variances() -> None:
    assert components([0.0, 1.0, 1.0], ["a", "b", "c"]) is None
