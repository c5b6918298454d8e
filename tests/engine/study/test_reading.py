"""The reading of what is done: pooled AUROC and AUROC within kinds, on streams whose answer was planted."""

import numpy as np
import torch

from engine.study.reading import separations
from extraction.directions import Streams

PROMPTS, KINDS, HIDDEN, LAYERS = 180, 20, 8, 2


def test_a_direction_that_reads_the_kind_alone_shows_within_kinds() -> None:
    """Layer 0 reads a kind's level, with which its declined share goes; layer 1 reads what each prompt's answer is."""
    rng = np.random.default_rng(0)
    level = np.repeat(np.linspace(-1, 1, KINDS), PROMPTS // KINDS)
    did = rng.random(PROMPTS) < (level + 1.2) / 2.4
    resid = rng.normal(0, 0.3, (LAYERS, PROMPTS, HIDDEN))
    resid[0, :, 0] += level
    resid[1, :, 0] += did
    units = torch.eye(HIDDEN, dtype=torch.float64)[[0, 0]]
    train = Streams(torch.randn(LAYERS, 40, HIDDEN), torch.randn(LAYERS, 40, HIDDEN))
    kinds = [f"kind {place * KINDS // PROMPTS}" for place in range(PROMPTS)]
    train_kinds = [f"kind {place % 10}" for place in range(40)]
    found = separations(units, train, torch.from_numpy(resid), (did, ~did), train_kinds, kinds)
    pooled, within = (found[name] for name in ("auroc", "within_auroc"))
    print([[round(row["value"], 2) for row in rows] for rows in (pooled, within)], found["within_kinds"])
    assert pooled[0]["low"] > 0.6 and within[0]["low"] < 0.5 < within[0]["high"]
    assert within[1]["low"] > 0.9
    assert pooled[0]["method"] == "percentile bootstrap over kinds" and pooled[0]["n"] == PROMPTS
    assert len(found["null"]) == LAYERS
