"""The dose-response plot: a curve a subject, and one band for several random draws."""

from typing import Any

import pytest

from engine.report.study_plots import alpha_curves


def row(subject: str, alpha: float, declined: float, mode: str = "ablate", site: str | None = "writes") -> dict[str, Any]:
    figure = {"value": declined, "low": max(declined - 0.1, 0), "high": min(declined + 0.1, 1)}
    return {
        "mode": mode,
        "requests": "declined",
        "site": site,
        "subject": subject,
        "alpha": alpha,
        "declined": figure,
        "coherence": figure,
    }


def test_several_random_draws_are_one_band_from_the_lowest_to_the_highest() -> None:
    rows = [row("base", 0.0, 0.8, "none", None)]
    draws = {"direction": 0.1, "random": 0.5, "random2": 0.7, "random3": 0.3, "shuffled": 0.6}
    rows += [row(subject, alpha, declined) for subject, declined in draws.items() for alpha in (0.5, 1.0)]
    axes = alpha_curves({"rows": rows, "added_at": 3}).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["direction, writes", "3 random, writes", "shuffled, writes"]
    assert list(axes.lines[1].get_ydata()) == pytest.approx([0.8, 0.5, 0.5])  # the draws' mean, from the base on
    (band,) = [path for place, path in enumerate(axes.collections) if place == 1]
    corners = band.get_paths()[0].vertices
    assert sorted(set(corners[corners[:, 0] == 1.0][:, 1].round(6))) == [0.3, 0.7]
