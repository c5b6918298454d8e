"""Candidates measured side by side, as a GPU does it, against each folded into the weights by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.configs.schema import SweepConfig
from engine.evaluate.candidates import SINGLE, Candidate
from engine.evaluate.probing import Probe
from engine.models.beside import can_stand_beside
from engine.models.folded import FoldedModel
from engine.models.variant import Variant
from extraction.screening import RefusalTokens, make_panel
from tests.tiny import HIDDEN, save_tiny, tiny_model

PROMPTS = [[1, 5 + n, 9, *range(20, 20 + n % 3), 4] for n in range(16)]
CONFIG = SweepConfig(max_kl=0.5, min_induce=-30.0)
TYPES = ["llama", "llama biased", "gemma2"]


@pytest.fixture(scope="module", params=TYPES)
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """Seven candidates' rows by the number of slots."""
    folder = save_tiny(request.param, tmp_path_factory.mktemp("beside"), dtype=torch.float32)
    checkpoint = open_checkpoint(folder)
    plan = plan_edit(checkpoint)
    model = tiny_model(request.param, torch.float32)
    halves = [make_panel(model, PROMPTS[part], PROMPTS[8:][part]) for part in (slice(4), slice(4, 8))]
    vectors = torch.randn(7, HIDDEN, generator=torch.Generator().manual_seed(0))
    edits = [Edit(orthonormal_basis(vector[None]), 0.5 + 0.25 * n) for n, vector in enumerate(vectors)]
    candidates = [Candidate(SINGLE, str(n), (), 1.0, Variant(str(n), "h", plan, edit)) for n, edit in enumerate(edits)]
    found = {}
    for slots in (1, 3):
        probe = Probe(FoldedModel(model, checkpoint, plan), halves, RefusalTokens([4, 50], 1.0, 0.0), slots)
        induced = list(probe.induce([(1 + n % 3, vector) for n, vector in enumerate(vectors)], CONFIG))
        found[slots] = list(probe.ablate(list(zip(candidates, induced, strict=True)), CONFIG))
    return found


@pytest.mark.parametrize("figure", ["bypass", "kl", "induce"])
def test_side_by_side_gives_what_each_gives_by_itself(figure: str, rows: dict[int, list[dict[str, Any]]]) -> None:
    beside, alone = ([row[figure] for row in rows[slots]] for slots in (3, 1))
    assert beside == pytest.approx(alone, abs=2e-5)


def test_what_the_first_half_settles_is_settled_side_by_side(rows: dict[int, list[dict[str, Any]]]) -> None:
    assert [row["n"] for row in rows[3]] == [row["n"] for row in rows[1]]


def test_candidates_differ(rows: dict[int, list[dict[str, Any]]]) -> None:
    assert len({round(row["bypass"], 6) for row in rows[3]}) == len(rows[3])


def test_embeddings_are_folded_in_one_by_one(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path, dtype=torch.float32)
    checkpoint = open_checkpoint(folder)
    plan = plan_edit(checkpoint, Scope(embeddings=True))
    assert not can_stand_beside(tiny_model("llama", torch.float32), checkpoint, plan)
