"""How alike prompts of one kind are: the intraclass correlation, and the number of independent prompts they are worth.

To be replaced by `judging.kinds`, which has the same two functions.
"""
# N = prompts, G = kinds

from collections.abc import Sequence

import numpy as np

from extraction.kinds import Kinds


def icc(values: Sequence[float], kinds: Sequence[str]) -> float:
    """The one-way ANOVA estimate of the intraclass correlation, between 0 and 1 (Donner 1986, doi:10.2307/1403259).

    0 where no kind has two prompts, where there is one kind alone, and where nothing varies.
    """
    values_N, of_kind = np.asarray(values, dtype=float), Kinds.of(kinds, len(values))
    count, total = of_kind.count, len(values_N)
    if of_kind.alone or count < 2:
        return 0.0
    sizes_G = of_kind.sizes_G
    means_G = of_kind.sums(values_N) / sizes_G
    between = float((sizes_G * (means_G - values_N.mean()) ** 2).sum() / (count - 1))
    within = float(((values_N - means_G[of_kind.codes_N]) ** 2).sum() / (total - count))
    size = float((total - (sizes_G**2).sum() / total) / (count - 1))
    spread = between + (size - 1) * within
    return min(max((between - within) / spread, 0.0), 1.0) if spread > 0 else 0.0


def effective_n(values: Sequence[float], kinds: Sequence[str]) -> float:
    """Number of independent prompts with the same variance of the mean: N / (1 + (m - 1) ICC), m a kind (Kish 1965)."""
    of_kind = Kinds.of(kinds, len(values))
    size = float((of_kind.sizes_G**2).sum() / len(values))
    return len(values) / (1 + (size - 1) * icc(values, kinds))
