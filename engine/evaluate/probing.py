"""Every candidate's bypass, induce and KL, from prefills alone; nothing is generated with a candidate.

transformers computes them (extraction.screening), in one process with the whole vocabulary.
"""
# N = prompts, H = hidden size

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.configs.schema import SweepConfig
from engine.display.progress import say
from engine.evaluate.candidates import Candidate
from engine.models.folded import FoldedModel
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import Grader
from extraction.generate import greedy
from extraction.intervention import addition
from extraction.prefill import BATCH_TOKENS
from extraction.prompts import Pair
from extraction.screening import (
    Panel,
    RefusalTokens,
    Scores,
    ablation_scores,
    find_refusal_tokens,
    forced_prefix,
    induction_scores,
    make_panel,
)
from judging.judgement import Item

FIRST_WORDS = 24  # tokens in which a refusal shows
GPU_BATCH_TOKENS = 32768
HOPELESS = 2.0  # standard errors beyond a limit, after half of the prompts


@dataclass(frozen=True)
class Probe:
    """The base, folded at will, and two halves of prompts; the second is read where the first does not settle the matter."""

    folded: FoldedModel
    halves: list[Panel]
    tokens: RefusalTokens

    def base_row(self, base: Candidate) -> Row:
        """The screen's row of the base itself, with nothing added or removed; it must be folded in."""
        scores = [ablation_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        induce = [induction_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        figures = {"bypass": torch.cat([part.bypass_N for part in scores]), "kl": torch.cat([part.kl_N for part in scores])}
        means = {name: float(values.mean()) for name, values in (figures | {"induce": torch.cat(induce)}).items()}
        return {"variant_hash": base.variant.hash, "variant": base.name, "alpha": 0.0, "n": len(figures["kl"]), **means}

    def induce(self, layer: int, difference_H: Tensor, config: SweepConfig) -> Tensor:
        """Refusal log-odds of answered prompts with the mean difference added at its layer; the base must be folded in."""
        read: list[Tensor] = []
        with addition(self.folded.model, layer, difference_H):
            for panel in self.halves:
                read.append(induction_scores(self.folded.model, panel, self.tokens.token_ids))
                induce_N = torch.cat(read)
                if too_low(induce_N, config.min_induce) or too_low(-induce_N, -config.min_induce):
                    break  # settled, one way or the other
        return torch.cat(read)

    def ablate(self, candidate: Candidate, induce_N: Tensor, config: SweepConfig) -> Row:
        """bypass and KL under the candidate's edit, with their number of prompts a side."""
        self.folded.fold(candidate.variant.edit)
        read: list[Scores] = []
        for panel in self.halves:
            read.append(ablation_scores(self.folded.model, panel, self.tokens.token_ids))
            kl_N = torch.cat([scores.kl_N for scores in read])
            if too_low(-kl_N, -config.max_kl) or too_low(induce_N, config.min_induce):
                break
        bypass_N = torch.cat([scores.bypass_N for scores in read])
        return {"n": len(kl_N), "bypass": float(bypass_N.mean()), "kl": float(kl_N.mean()), "induce": float(induce_N.mean())}


def make_probe(session: Session, model: Any, pairs: Sequence[Pair], grader: Grader) -> Probe:
    """Lay out the prompts, find the refusal tokens, and remember the base's distributions."""
    declined = [session.renderer.render(pair.declined) for pair in pairs]
    answered = [session.renderer.render(pair.answered) for pair in pairs]
    forced = forced_prefix(model, [*declined[:8], *answered[:8]])
    responses = greedy(model, declined, len(forced) + FIRST_WORDS)
    declined, answered = ([[*prompt, *forced] for prompt in side] for side in (declined, answered))
    size = BATCH_TOKENS if next(model.parameters()).device.type == "cpu" else GPU_BATCH_TOKENS
    middle = len(pairs) // 2
    halves = [
        make_panel(model, declined[part], answered[part], batch_tokens=size) for part in (slice(middle), slice(middle, None))
    ]
    answers = [int(token) for panel in halves for token in panel.base_logprobs_NV.argmax(-1)]
    refusals = _first_tokens_of_refusals(session, pairs, responses, len(forced), grader)
    tokens = find_refusal_tokens(refusals, answers)
    words = [session.renderer.tokenizer.decode([token]) for token in tokens.token_ids]
    after = f", read after {len(forced)} forced tokens" if forced else ""
    say(
        f"screen: refusals begin with {words} ({tokens.share_of_refusals:.0%} of {len(refusals)} refusals, "
        f"{tokens.share_of_answers:.0%} of {len(answers)} answers{after})"
    )
    return Probe(FoldedModel(model, session.checkpoint, session.plan), halves, tokens)


def too_low(values_N: Tensor, limit: float) -> bool:
    """Whether the mean is below the limit by more than HOPELESS standard errors, so that more prompts would not help."""
    if len(values_N) < 2:
        return False
    return float(values_N.mean() + HOPELESS * values_N.std() / len(values_N) ** 0.5) < limit


def _first_tokens_of_refusals(
    session: Session, pairs: Sequence[Pair], responses: Sequence[list[int]], num_forced: int, grader: Grader
) -> list[int]:
    """The first token, after the forced ones, of each response that the sweep's own judge calls declined."""
    texts = [session.renderer.tokenizer.decode(response, skip_special_tokens=True) for response in responses]
    items = [Item(pair.declined, text) for pair, text in zip(pairs, texts, strict=True)]
    grader.ask(items)
    grader.drain()
    judged = zip(grader.grade(items), responses, strict=True)
    return [ids[num_forced] for one, ids in judged if len(ids) > num_forced and one.declined]


def filtered(row: Row, config: SweepConfig, num_layers: int) -> str | None:
    """Why the screen leaves a candidate out; None where it passes."""
    if row["layer"] >= config.max_depth * num_layers:
        return f"depth {row['layer'] / num_layers:.2f} (limit {config.max_depth:g})"
    if not row["kl"] <= config.max_kl:
        return f"KL {row['kl']:.3f} (limit {config.max_kl:g})"
    if not row["induce"] > config.min_induce:
        return f"induces {row['induce']:.2f} (limit {config.min_induce:g})"
    return None if math.isfinite(row["bypass"]) else "bypass is not finite"
