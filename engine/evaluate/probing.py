"""Every candidate's bypass, induce and KL, from prefills alone; nothing is generated with a candidate.

transformers computes them (extraction.screening), in one process with the whole vocabulary.
"""
# N = prompts, H = hidden size

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.configs.schema import SweepConfig
from engine.display.progress import say
from engine.evaluate.candidates import Candidate
from engine.evaluate.tasks import chunks
from engine.models.beside import can_stand_beside, removals_of
from engine.models.folded import FoldedModel
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import Grader
from extraction.beside import additions, induction_beside, removals, scores_beside
from extraction.generate import greedy
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
MOST_SLOTS = 64  # candidates of one pass
SHARE_FOR_LOGITS = 0.3  # of a GPU's free memory
BYTES_A_LOGIT = 64  # of a prompt's next token, in every precision that it is held in at once
HOPELESS = 2.0  # standard errors beyond a limit, after half of the prompts


@dataclass(frozen=True)
class Probe:
    """The base, and two halves of prompts; the second is read where the first does not settle the matter.

    slots: candidates that are measured side by side in one pass; with 1 each is folded into the weights by itself. Between
    calls the base is folded in.
    """

    folded: FoldedModel
    halves: list[Panel]
    tokens: RefusalTokens
    slots: int = 1

    def base_row(self, base: Candidate) -> Row:
        """The screen's row of the base itself, with nothing added or removed."""
        scores = [ablation_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        induce = [induction_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        figures = {"bypass": torch.cat([part.bypass_N for part in scores]), "kl": torch.cat([part.kl_N for part in scores])}
        means = {name: float(values.mean()) for name, values in (figures | {"induce": torch.cat(induce)}).items()}
        return {"variant_hash": base.variant.hash, "variant": base.name, "alpha": 0.0, "n": len(figures["kl"]), **means}

    def induce(self, asked: Sequence[tuple[int, Tensor]], config: SweepConfig) -> Iterator[Tensor]:
        """Refusal log-odds of answered prompts with each mean difference (H,) added at its layer, in order."""
        model, token_ids = self.folded.model, self.tokens.token_ids
        for some in chunks(asked, self.slots):
            read: list[list[Tensor]] = [[] for _ in some]
            for panel in self.halves:
                left = [place for place, own in enumerate(read) if not own or not _settled(torch.cat(own), config)]
                if not left:
                    break
                layers, vectors_SH = [some[place][0] for place in left], torch.stack([some[place][1] for place in left])
                with additions(model, layers, vectors_SH):
                    induce_SN = induction_beside(model, panel, token_ids, len(left))
                for place, induce_N in zip(left, induce_SN, strict=True):
                    read[place].append(induce_N)
            yield from map(torch.cat, read)

    def ablate(self, asked: Sequence[tuple[Candidate, Tensor]], config: SweepConfig) -> Iterator[Row]:
        """bypass and KL under each candidate's edit, in order, with their number of prompts a side; each with its induction."""
        for some in chunks(asked, self.slots):
            read: list[list[Scores]] = [[] for _ in some]
            for panel in self.halves:
                left = [place for place, own in enumerate(read) if not own or not _hopeless(own, some[place][1], config)]
                if not left:
                    break
                for place, scores in zip(left, self._scores([some[place][0] for place in left], panel), strict=True):
                    read[place].append(scores)
            for own, (_, induce_N) in zip(read, some, strict=True):
                yield _figures(own, induce_N)
        self.folded.fold(None)

    def _scores(self, candidates: Sequence[Candidate], panel: Panel) -> list[Scores]:
        """Each candidate's scores on a panel."""
        model, token_ids = self.folded.model, self.tokens.token_ids
        if self.slots == 1:
            self.folded.fold(candidates[0].variant.edit)
            return [ablation_scores(model, panel, token_ids)]
        edits = [None, *(candidate.variant.edit for candidate in candidates)]
        with removals(model, removals_of(self.folded.checkpoint, self.folded.plan, edits)):
            return scores_beside(model, panel, token_ids, len(edits))


def _settled(induce_N: Tensor, config: SweepConfig) -> bool:
    """Whether the direction induces refusal or does not, one way or the other."""
    return too_low(induce_N, config.min_induce) or too_low(-induce_N, -config.min_induce)


def _hopeless(read: Sequence[Scores], induce_N: Tensor, config: SweepConfig) -> bool:
    """Whether the candidate is beyond a limit."""
    kl_N = torch.cat([scores.kl_N for scores in read])
    return too_low(-kl_N, -config.max_kl) or too_low(induce_N, config.min_induce)


def _figures(read: Sequence[Scores], induce_N: Tensor) -> Row:
    bypass_N, kl_N = torch.cat([scores.bypass_N for scores in read]), torch.cat([scores.kl_N for scores in read])
    return {"n": len(kl_N), "bypass": float(bypass_N.mean()), "kl": float(kl_N.mean()), "induce": float(induce_N.mean())}


def slots_of(folded: FoldedModel, halves: Sequence[Panel], *, keep_norms: bool) -> int:
    """Candidates that one pass measures side by side: on a GPU as many as fill it, else 1.

    On a CPU a pass costs its arithmetic, which side by side is no less.
    """
    model = folded.model
    if (
        next(model.parameters()).device.type != "cuda"
        or keep_norms
        or not can_stand_beside(model, folded.checkpoint, folded.plan)
    ):
        return 1
    tokens = max(panel.both.largest for panel in halves)
    rows = max(panel.both.num_prompts for panel in halves)
    logits = rows * int(halves[0].base_logprobs_NV.shape[1]) * BYTES_A_LOGIT
    fit = min(GPU_BATCH_TOKENS // tokens, int(SHARE_FOR_LOGITS * torch.cuda.mem_get_info()[0] / logits)) - 1  # less the base's
    return max(min(fit, MOST_SLOTS), 1)


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
    folded = FoldedModel(model, session.checkpoint, session.plan)
    return Probe(folded, halves, tokens, slots_of(folded, halves, keep_norms=session.config.edit.keep_norms))


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
