"""arditi.json: the procedure of Arditi et al. 2024 as their code has it, for one model, with what our defaults do otherwise.

Pairs are filtered by refusal score. Candidates are all template positions behind the instruction, at layers below 0.8 of the
depth. A direction is projected out of every block's input and out of what attention and MLP write, at run time. Its KL adds
1e-6 to each probability. The candidate with the lowest bypass among those that pass the filters is chosen; nothing is raced.
"""
# N = pairs, H = hidden size

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from engine.display.progress import Progress, say
from engine.environment import describe
from engine.errors import EngineError
from engine.evaluate.probing import make_probe
from engine.models.folded import FoldedModel
from engine.rollout.directions import transformers_model
from engine.runs.requests import DECLINED
from engine.runs.schemas import Row
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import OfflineGrader
from engine.study.opening import Study
from engine.study.panel import make_panel, nothing, write_modules
from extraction.directions import Directions, group_means
from extraction.intervention import ablation, addition, stream_ablation
from extraction.positions import POST_INSTRUCTION, offsets_of
from extraction.screening import Panel, ablation_scores, induction_scores, refusal_scores, smoothed_kl
from extraction.screening import make_panel as lay_out

MAX_KL, MIN_INDUCE, PRUNED = 0.1, 0.0, 0.2  # the paper's; its code leaves out the last fifth of the layers
SELECTION = 32
SHOWN = 10
SIDES = ("declined", "answered")


@dataclass(frozen=True)
class Chosen:
    """The direction that the procedure chose, (H,), and the figures it was chosen by."""

    position: str
    layer: int
    direction_H: Tensor
    figures: Row


@dataclass(frozen=True)
class Sides:
    """Declined and answered prompts that pass the filter, not paired, and how many there were of each."""

    declined: list[list[int]]
    answered: list[list[int]]
    counts: tuple[int, int]

    def __str__(self) -> str:
        return f"{len(self.declined)} of {self.counts[0]} declined and {len(self.answered)} of {self.counts[1]} answered prompts"


def make_arditi(study: Study, *, num_prompts: int = 64, max_tokens: int = 48, min_score: float = 0.0) -> Row:
    """The procedure's filters and choice, and test requests under its ablation, and under the fold with and without embeddings.

    min_score: the refusal score that a declined prompt must exceed and an answered one stay below; 0 as published.
    Where no candidate passes, `rows` has the candidates of the lowest KL. Raises EngineError where the filter leaves fewer than
    two prompts of a side.
    """
    session = study.session
    model = transformers_model(session)
    writers = write_modules(session, model)
    tokens = make_probe(session, model, study.held_out[:SELECTION], OfflineGrader()).tokens.token_ids
    pairs = session.rendered_pairs()
    train = filtered(model, [pair.declined for pair in pairs], [pair.answered for pair in pairs], tokens, min_score)
    held = filtered(model, *study.sides, tokens, min_score)
    say(f"arditi: {train} pass the filter for directions, {held} for the choice")
    directions = _directions(model, train, session.offsets([POST_INSTRUCTION]))
    panel = lay_out(model, held.declined[:SELECTION], held.answered[:SELECTION])
    candidates = list(_candidates(model, writers, directions, panel, tokens))
    chosen = choose(candidates, directions)
    if chosen is None:
        rows = sorted(candidates, key=lambda row: row["kl"])[:SHOWN]
    else:
        asked = study.requests(DECLINED, num_prompts)
        rows = _evaluated(study, model, writers, chosen, make_panel(session, model, asked, max_tokens))
    return {
        "rows": rows,
        "note": f"{_choice(candidates, chosen)} Directions of {train}: refusal score above {min_score:g}, and below.",
        "candidates": candidates,
        "prompts": {"train": str(train), "held_out": str(held)},
        "chosen": None if chosen is None else {"position": chosen.position, "layer": chosen.layer, **chosen.figures},
        "judge": judge_of(OfflineGrader()),
        **describe(),
    }


def _choice(candidates: Sequence[Row], chosen: Chosen | None) -> str:
    """The choice in a sentence."""
    limits = f"KL below {MAX_KL:g}, induce above {MIN_INDUCE:g}"
    if chosen is None:
        return f"None of {len(candidates)} candidates passes the filters as published ({limits}); shown are the lowest KLs."
    passing = sum(row["passes"] for row in candidates)
    return (
        f"Chosen: {chosen.position}, layer {chosen.layer}, of {len(candidates)} candidates, {passing} of which pass ({limits}). "
        "Greedy responses in transformers, the rules as judge."
    )


@contextmanager
def everywhere(model: Any, writers: Sequence[str], basis_HK: Tensor) -> Iterator[None]:
    """Project a subspace out of every block's input and of what attention and MLP write: their run-time ablation."""
    with stream_ablation(model, basis_HK), ablation(model, writers, basis_HK, biases=True):
        yield


def filtered(
    model: Any, declined: Sequence[list[int]], answered: Sequence[list[int]], tokens: Sequence[int], min_score: float
) -> Sides:
    """The declined prompts whose refusal score is above `min_score`, and the answered ones whose score is below."""
    above_N = refusal_scores(model, declined, tokens)
    below_N = refusal_scores(model, answered, tokens)
    kept = [
        [prompt for prompt, keep in zip(side, passes.tolist(), strict=True) if keep]
        for side, passes in ((declined, above_N > min_score), (answered, below_N < min_score))
    ]
    for name, side, kept_side, scores_N in zip(SIDES, (declined, answered), kept, (above_N, below_N), strict=True):
        if len(kept_side) < 2:
            raise EngineError(
                f"{len(kept_side)} of {len(side)} {name} prompts pass the filter as published: refusal scores are "
                f"{float(scores_N.min()):.2f} to {float(scores_N.max()):.2f}, the limit is {min_score:g}. It is for "
                "models that refuse by their first token. bin/study arditi --option min_score=NUMBER moves the limit."
            )
    return Sides(kept[0], kept[1], (len(declined), len(answered)))


def _directions(model: Any, train: Sides, offsets: Mapping[str, int]) -> dict[str, Directions]:
    """Mean difference of the filtered sides, which need not be of one size, at each position."""
    groups, prompts = [(0,)] * len(train.declined) + [(1,)] * len(train.answered), [*train.declined, *train.answered]
    means_GPLH = group_means(model, prompts, groups, offsets_of(offsets, prompts))
    count = min(len(train.declined), len(train.answered))
    return {name: Directions(means_GPLH[0, place], means_GPLH[1, place], count, name) for place, name in enumerate(offsets)}


def _candidates(
    model: Any, writers: Sequence[str], directions: Mapping[str, Directions], panel: Panel, tokens: Sequence[int]
) -> Iterator[Row]:
    """bypass, induce and KL of every position and layer below the depth limit, and whether the filters let it pass."""
    depth = next(iter(directions.values())).mean_difference_LH.shape[0] - 1
    layers = range(int(depth * (1 - PRUNED)))
    with Progress("arditi", len(directions) * len(layers), "candidates") as progress:
        for position, found in directions.items():
            for layer in layers:
                difference_H = found.mean_difference_LH[layer]
                progress.advance()
                if float(difference_H.norm()) == 0:  # a template token's embedding, the same in every prompt
                    continue
                with addition(model, layer, difference_H):
                    induce = float(induction_scores(model, panel, tokens).mean())
                with everywhere(model, writers, orthonormal_basis(difference_H[None])):
                    scores = ablation_scores(model, panel, tokens, smoothed_kl)
                figures = {"bypass": float(scores.bypass_N.mean()), "induce": induce, "kl": float(scores.kl_N.mean())}
                passes = figures["kl"] < MAX_KL and induce > MIN_INDUCE
                yield {"position": position, "layer": layer, **figures, "passes": passes}


def choose(candidates: Sequence[Row], directions: Mapping[str, Directions]) -> Chosen | None:
    """The lowest bypass among those that pass; None where none does."""
    passing = [row for row in candidates if row["passes"]]
    if not passing:
        return None
    best = min(passing, key=lambda row: row["bypass"])
    direction_H = directions[best["position"]].mean_difference_LH[best["layer"]]
    return Chosen(best["position"], best["layer"], direction_H, {name: best[name] for name in ("bypass", "induce", "kl")})


def _evaluated(study: Study, model: Any, writers: Sequence[str], chosen: Chosen, panel: Any) -> list[Row]:
    """Test requests answered by the base, under the ablation as published, and with the direction folded into the weights."""
    basis_HK = orthonormal_basis(chosen.direction_H[None])
    rows = [{"intervention": "none", **panel.measure(nothing())}]
    rows.append({"intervention": "every input and write", **panel.measure(everywhere(model, writers, basis_HK))})
    checkpoint = study.session.checkpoint
    for name, scope in (("fold with embeddings", Scope(embeddings=True)), ("fold, our default", Scope())):
        folded = FoldedModel(model, checkpoint, plan_edit(checkpoint, scope))
        folded.fold(Edit(basis_HK, 1.0))
        rows.append({"intervention": name, **panel.measure(nothing())})
        folded.fold(None)
    return rows
