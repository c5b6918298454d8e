"""How many prompts or kinds a difference takes: the power of a paired comparison of two rates, by simulation.

Two models answer the same prompts, right or wrong. Prompts of one kind are alike (an intraclass correlation), and so are both
models on one prompt. The test is Student's over the kinds' mean differences; where each prompt is a kind, over prompts.
Rates come from normal variables behind them, whose correlations are found from those of the 0 and 1 (Emrich and Piedmonte 1991).
"""
# G = kinds drawn, M = prompts of a kind, R = samples

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import EngineError

SEED = 0
POOL = 20_000  # kinds, of which samples are drawn
SAMPLES, FINE_SAMPLES = 1000, 4000
LEVEL, POWER = 0.05, 0.8
MOST = 100_000  # kinds, or prompts of a kind
MOST_ROWS = 256  # prompts a kind; what is left then is between kinds
NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Setting:
    """What is compared: the base's rate, the difference, and how alike prompts and models are.

    icc: intraclass correlation of the outcomes of one model, 0 to below 1.
    correlation: of both models' outcomes on one prompt, 0 to below 1.
    """

    base: float
    difference: float
    icc: float = 0.0
    correlation: float = 0.5


def check_setting(setting: Setting) -> Setting:
    """The setting. Raises EngineError for a rate, an ICC or a correlation that cannot be."""
    if not 0 < setting.base < 1:
        raise EngineError(f"--base takes a rate between 0 and 1; found {setting.base:g}.")
    if setting.difference == 0 or not 0 < setting.base + setting.difference < 1:
        raise EngineError(
            f"--difference takes a share other than 0 that leaves a rate between 0 and 1, such as 0.05 for 5 points; found "
            f"{setting.difference:g} with base {setting.base:g}."
        )
    for name, value in (("--icc", setting.icc), ("--correlation", setting.correlation)):
        if not 0 <= value < 1:
            raise EngineError(f"{name} takes a number from 0 to below 1; found {value:g}.")
    return setting


class Power:
    """The power of one setting at any number of kinds and of prompts a kind."""

    def __init__(self, setting: Setting) -> None:
        self.setting = check_setting(setting)
        rates = setting.base, setting.base + setting.difference
        self.cuts = [_normal(rate) for rate in rates]
        self.kind_share = np.mean([latent_correlation(rate, rate, setting.icc) for rate in rates])
        self.between = latent_correlation(*rates, setting.correlation)
        self._pools: dict[int, np.ndarray] = {}

    def at(self, kinds: int, rows: int, samples: int = FINE_SAMPLES) -> float:
        """The share of samples of `kinds` kinds with `rows` prompts each in which the test says p < 0.05."""
        if kinds < 2:
            return 0.0
        pool_G, rng, found = self._pool(rows), np.random.default_rng(SEED + 1), 0
        limit, step = _student(1 - LEVEL / 2, kinds - 1), max(NUMBERS_AT_ONCE // kinds, 1)
        for start in range(0, samples, step):
            drawn_RG = pool_G[rng.integers(0, len(pool_G), (min(step, samples - start), kinds))]
            error_R = drawn_RG.std(axis=1, ddof=1) / math.sqrt(kinds)
            found += int((np.abs(drawn_RG.mean(axis=1)) > limit * error_R).sum())
        return found / samples

    def kinds_needed(self, rows: int, power: float = POWER) -> int | None:
        """The fewest kinds with `rows` prompts each; None above 100,000."""
        pool_G = self._pool(rows)
        guess = ((_normal(1 - LEVEL / 2) + _normal(power)) * pool_G.std() / abs(self.setting.difference)) ** 2
        return None if guess > MOST else _smallest(lambda kinds: self.at(kinds, rows, SAMPLES) >= power, 2, guess)

    def rows_needed(self, kinds: int, power: float = POWER) -> int | None:
        """The fewest prompts a kind with `kinds` kinds; None where 256 are not enough."""
        rows = 1
        while self.at(kinds, rows, SAMPLES) < power:
            if rows >= MOST_ROWS:
                return None
            rows *= 2
        return _smallest(lambda size: self.at(kinds, size, SAMPLES) >= power, max(rows // 2, 1), rows)

    def detectable(self, kinds: int, rows: int, power: float = POWER) -> float:
        """The difference that so many prompts show with this power, from the scatter at the setting's own difference."""
        factor = _student(1 - LEVEL / 2, kinds - 1) + _student(power, kinds - 1)
        return factor * float(self._pool(rows).std()) / math.sqrt(kinds)

    def _pool(self, rows: int) -> np.ndarray:
        """Mean differences of many kinds of `rows` prompts, (G,), moved so that their mean is the setting's difference."""
        if rows not in self._pools:
            count = max(POOL // max(rows // 8, 1), 2000)
            rng = np.random.default_rng(SEED)
            kind, own = self._pairs(rng, (count, 1)), self._pairs(rng, (count, rows))
            parts = zip(kind, own, self.cuts, strict=True)
            outcomes = [
                math.sqrt(self.kind_share) * of_kind + math.sqrt(1 - self.kind_share) * of_row < cut
                for of_kind, of_row, cut in parts
            ]
            found_G = outcomes[1].mean(axis=1) - outcomes[0].mean(axis=1)
            self._pools[rows] = found_G - found_G.mean() + self.setting.difference
        return self._pools[rows]

    def _pairs(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        first, second = rng.standard_normal((2, *shape))
        return first, self.between * first + math.sqrt(1 - self.between**2) * second


def latent_correlation(first: float, second: float, correlation: float) -> float:
    """The correlation of two normal variables whose signs, with these rates of success, have the given correlation.

    The highest that two rates allow is below 1 where they differ; above it, 0.999 is given.
    """
    from scipy.optimize import brentq
    from scipy.stats import multivariate_normal

    cuts = [_normal(first), _normal(second)]
    spread = math.sqrt(first * (1 - first) * second * (1 - second))

    def excess(latent: float) -> float:
        both = multivariate_normal.cdf(cuts, mean=[0, 0], cov=[[1, latent], [latent, 1]])
        return float(both - first * second - correlation * spread)

    if correlation <= 0 or excess(0.999) < 0:
        return 0.0 if correlation <= 0 else 0.999
    return float(brentq(excess, 0, 0.999, xtol=1e-4))


def _normal(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _student(share: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def _smallest(enough: Callable[[int], bool], least: int, guess: float) -> int:
    """The smallest whole number that is enough, by bisection around a guess; more is taken to be no worse."""
    high = max(least, math.ceil(guess))
    while not enough(high):
        high = math.ceil(high * 1.25) + 1
    low = max(least - 1, high // 2)
    while low > least - 1 and enough(low):
        high, low = low, max(least - 1, low // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
