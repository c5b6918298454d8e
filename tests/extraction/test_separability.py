"""Cohen's d, AUROC and probes against their references."""

import numpy as np
import pytest
import torch

from extraction.errors import ExtractionError
from extraction.estimators import ESTIMATORS, estimate
from extraction.separability import auroc, cohens_d, fit_probe, null_band, probe_right, separability

RNG = np.random.default_rng(0)
DECLINED, ANSWERED = RNG.normal(1.0, 2.0, 60), RNG.normal(0.0, 1.0, 60)


def test_cohens_d_is_the_studys_formula_and_auroc_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    expected = (DECLINED.mean() - ANSWERED.mean()) / np.sqrt(0.5 * (DECLINED.var(ddof=1) + ANSWERED.var(ddof=1)))
    assert cohens_d(DECLINED, ANSWERED) == pytest.approx(expected)
    tied = np.round(DECLINED), np.round(ANSWERED)
    reference = roc_auc_score([1] * 60 + [0] * 60, np.concatenate(tied))
    print(f"AUROC {auroc(*tied):.6f}, scikit-learn {reference:.6f}")
    assert auroc(*tied) == pytest.approx(reference)
    assert np.isnan(cohens_d(np.zeros(3), np.zeros(3)))
    assert auroc(np.zeros(3), np.zeros(3)) == 0.5


def test_many_rows_equal_one_row_at_a_time() -> None:
    first, second = RNG.standard_normal((5, 30)), RNG.standard_normal((5, 20))
    for function in (cohens_d, auroc):
        assert np.allclose(function(first, second), [function(*rows) for rows in zip(first, second, strict=True)])


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth, covered = 1.0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = separability(rng.normal(truth, 1, 80), rng.normal(0, 1, 80)).cohens_d
        covered += found[1] <= truth <= found[2]
    print(f"95 % intervals of d cover in {covered} of 200 samples")
    assert covered >= 180


def test_groups_of_unequal_size_have_intervals_too() -> None:
    found = separability(DECLINED, ANSWERED[:25])
    assert found.auroc[1] < found.auroc[0] < found.auroc[2]


def test_the_null_band_holds_what_means_nothing_and_not_what_does() -> None:
    noise = np.random.default_rng(3).standard_normal((200, 40)), np.random.default_rng(4).standard_normal((200, 40))
    band = null_band(*noise)
    assert band["auroc"][0] < 0.5 < band["auroc"][1] < float(auroc(DECLINED, ANSWERED) + 0.1)
    assert band["cohens_d"][0] < 0 < band["cohens_d"][1]


def test_a_probe_tells_held_out_prompts_apart_only_where_there_is_something_to_tell() -> None:
    shift = np.zeros(30)
    shift[4] = 3.0
    train = RNG.standard_normal((80, 30)) + shift, RNG.standard_normal((80, 30))
    held = RNG.standard_normal((200, 30)) + shift, RNG.standard_normal((200, 30))
    found = probe_right(fit_probe(*train), *held)
    right = int(found.sum())
    noise = int(probe_right(fit_probe(train[1], RNG.standard_normal((80, 30))), held[1], RNG.standard_normal((200, 30))).sum())
    print(f"probe: {right} of {len(found)} right; without a difference {noise}")
    assert found.shape == (400,)
    assert right > 340
    assert 150 < noise < 250


def streams(pairs: int = 200, hidden: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two layers of streams whose sides differ along a known unit direction, beside a large common mean."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(hidden, generator=generator, dtype=torch.float64), dim=0)
    common = torch.zeros(hidden, dtype=torch.float64)
    common[3] = 50.0
    shared = torch.randn(2, pairs, hidden, generator=generator, dtype=torch.float64)
    declined = common + shared + 4 * direction + 0.5 * torch.randn(2, pairs, hidden, generator=generator, dtype=torch.float64)
    answered = common + shared + 0.5 * torch.randn(2, pairs, hidden, generator=generator, dtype=torch.float64)
    return declined, answered, direction


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_finds_the_planted_direction(name: str) -> None:
    declined, answered, direction = streams()
    found = estimate(name, declined, answered)
    cosines = (found @ direction).tolist()
    print(f"{name}: cosine to the planted direction {cosines}")
    assert found.shape == (2, 40)
    assert torch.allclose(found.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    assert min(cosines) > (0.8 if name == "probe" else 0.97)


def test_projected_has_no_part_along_the_answered_mean() -> None:
    declined, answered, _ = streams()
    found = estimate("projected", declined, answered)
    assert float((found * answered.mean(dim=1)).sum(dim=-1).abs().max()) < 1e-9
    plain = estimate("mean_difference", declined, answered)
    assert float((plain * answered.mean(dim=1)).sum(dim=-1).abs().max()) > 0.1


def test_winsorised_is_not_led_by_one_huge_component() -> None:
    declined, answered, direction = streams(hidden=1000)
    declined[:, :, 7] += 3000 * (torch.arange(200) == 0)  # one prompt's massive activation
    plain, clipped = (float(estimate(name, declined, answered)[0] @ direction) for name in ("mean_difference", "winsorised"))
    print(f"cosine with one massive activation: mean difference {plain:.3f}, winsorised {clipped:.3f}")
    assert plain < 0.5 < 0.9 < clipped


def test_no_difference_gives_no_direction_and_an_unknown_name_is_refused() -> None:
    declined, _, _ = streams()
    assert not estimate("pca", declined, declined.clone()).any()
    with pytest.raises(ExtractionError, match="Unknown estimator 'median'; expected one of mean_difference, projected"):
        estimate("median", declined, declined)
