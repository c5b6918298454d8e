"""Three numbers that screen a candidate direction without generating (Arditi et al. 2024, appendix C).

bypass: mean log-odds of a refusal's first token on declined prompts under ablation; low is good.
induce: the same on answered prompts with the direction added at its own layer; above 0 it induces refusal.
KL: mean divergence of the next-token distribution on answered prompts, base from ablated; low keeps the model's ability.
"""
# N = prompts, V = vocabulary

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extraction.errors import ExtractionError
from extraction.prefill import BATCH_TOKENS, Prefill, laid_out

LOG_ODDS_LIMIT = 18.42  # log(1e8): the paper's code adds 1e-8 to both probabilities
SMOOTHING = 1e-6  # of probabilities in the paper's KL
FORCED = 0.999  # a first token this likely on every prompt is the template's doing
MAX_FORCED = 16


@dataclass(frozen=True)
class RefusalTokens:
    """First tokens of refusals, with the shares of the refusals and of the answers that begin so."""

    token_ids: list[int]
    share_of_refusals: float
    share_of_answers: float


def refusal_log_odds(logits_NV: Tensor, token_ids: Sequence[int]) -> Tensor:
    """log p(refusal tokens) - log p(all others), in float64 and within +-18.42: (N,). -inf logits count as 0."""
    logits_NV = logits_NV.to(torch.float64)
    wanted = torch.zeros(logits_NV.shape[1], dtype=torch.bool, device=logits_NV.device)
    wanted[list(token_ids)] = True
    odds_N = logits_NV[:, wanted].logsumexp(-1) - logits_NV[:, ~wanted].logsumexp(-1)
    return odds_N.clamp(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)


def kl_divergence(base_logprobs_NV: Tensor, logits_NV: Tensor) -> Tensor:
    """KL(base || other) in nats over the whole vocabulary, float64: (N,).

    A token that the base gives probability 0 (logit -inf) adds nothing; one that only the other gives 0 makes it inf.
    """
    base_NV = base_logprobs_NV.to(logits_NV.device, torch.float64)
    other_NV = logits_NV.to(torch.float64).log_softmax(-1)
    terms_NV = base_NV.exp() * (base_NV - other_NV)
    return torch.where(base_NV == -torch.inf, 0.0, terms_NV).sum(-1)


def smoothed_kl(base_logprobs_NV: Tensor, logits_NV: Tensor) -> Tensor:
    """KL(base || other) in nats with 1e-6 added to each probability, float64: (N,). As the code of Arditi et al. computes it."""
    base_NV = base_logprobs_NV.to(logits_NV.device, torch.float64).exp()
    other_NV = logits_NV.to(torch.float64).softmax(-1)
    return (base_NV * ((base_NV + SMOOTHING).log() - (other_NV + SMOOTHING).log())).sum(-1)


@dataclass(frozen=True)
class Panel:
    """Prompts that candidates are measured on, and the base's next-token log-probabilities on the answered ones (N, V)."""

    both: Prefill  # declined, then answered
    answered: Prefill
    num_declined: int
    base_logprobs_NV: Tensor


@dataclass(frozen=True)
class Scores:
    """Per prompt: bypass on declined ones (log-odds), KL on answered ones (nats), each (N,) in float64."""

    bypass_N: Tensor
    kl_N: Tensor


def make_panel(
    model: Any, declined: Sequence[Sequence[int]], answered: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> Panel:
    """A panel of prompts, laid out for repeated passes, with the base's next-token log-probabilities on the answered ones.

    model: must be the base now. It is read in the batches that candidates are: in 16 bits another batch is other rounding,
    which would be a KL divergence of the base from itself (8e-4 nats seen on an H200).
    """
    alone = laid_out(model, answered, batch_tokens)
    both = laid_out(model, [*declined, *answered], batch_tokens)
    return Panel(both, alone, len(declined), next_token_logprobs(model, both)[len(declined) :])


def ablation_scores(
    model: Any, panel: Panel, token_ids: Sequence[int], divergence: Callable[[Tensor, Tensor], Tensor] = kl_divergence
) -> Scores:
    """bypass and KL of every prompt, in one pass over all; `model` has the candidate ablated.

    divergence: `kl_divergence`, or `smoothed_kl`.
    """
    num_prompts, first = panel.both.num_prompts, panel.num_declined
    bypass_N, kl_N = torch.zeros(first, dtype=torch.float64), torch.zeros(num_prompts - first, dtype=torch.float64)
    for part in panel.both.logits(model):
        index_B = torch.tensor(part.indices)
        of_declined_B = index_B < first
        bypass_N[index_B[of_declined_B]] = refusal_log_odds(part.logits_BV[of_declined_B], token_ids).cpu()
        answered_B = index_B[~of_declined_B] - first
        kl_N[answered_B] = divergence(panel.base_logprobs_NV[answered_B], part.logits_BV[~of_declined_B]).cpu()
    return Scores(bypass_N, kl_N)


def induction_scores(model: Any, panel: Panel, token_ids: Sequence[int]) -> Tensor:
    """Refusal log-odds of every answered prompt, (N,) float64; `model` has the direction added."""
    induce_N = torch.zeros(panel.answered.num_prompts, dtype=torch.float64)
    for part in panel.answered.logits(model):
        induce_N[part.indices] = refusal_log_odds(part.logits_BV, token_ids).cpu()
    return induce_N


def refusal_scores(model: Any, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> Tensor:
    """Each prompt's refusal log-odds at its next token, (N,) float64: the refusal score of Arditi et al."""
    prefill = laid_out(model, prompts)
    scores_N = torch.zeros(len(prompts), dtype=torch.float64)
    for part in prefill.logits(model):
        scores_N[part.indices] = refusal_log_odds(part.logits_BV, token_ids).cpu()
    return scores_N


def next_token_logprobs(model: Any, prompts: Prefill) -> Tensor:
    """Log-probabilities of the next token, float32, in the prompts' order: (N, V)."""
    parts = list(prompts.logits(model))
    places = torch.tensor([index for part in parts for index in part.indices])
    return torch.cat([part.logits_BV.float().log_softmax(-1) for part in parts])[places.argsort()]


def forced_prefix(model: Any, prompts: Sequence[Sequence[int]]) -> list[int]:
    """Tokens that the model begins every response with, whatever it is asked, such as a channel or thinking mark.

    The numbers above say nothing there (the KL is 0), so they are read after these tokens.
    """
    forced: list[int] = []
    while len(forced) < MAX_FORCED:
        logprobs_NV = next_token_logprobs(model, laid_out(model, [[*prompt, *forced] for prompt in prompts]))
        best_N, token_N = logprobs_NV.max(-1)
        if len(token_N.unique()) > 1 or float(best_N.min().exp()) < FORCED:
            break
        forced.append(int(token_N[0]))
    return forced


def find_refusal_tokens(refusals: Sequence[int], answers: Sequence[int]) -> RefusalTokens:
    """First tokens that begin refusals more than twice as often as answers.

    refusals, answers: first tokens of the model's own responses.
    Raises ExtractionError where there are too few refusals, or where the first token does not tell.
    """
    if len(refusals) < 2:
        raise ExtractionError(
            f"The model declined {len(refusals)} of the screening prompts; its refusals' first tokens cannot be found. "
            "Check that these are prompts it declines, or search without the screen (--exhaustive)."
        )
    declined, answered = Counter(refusals), Counter(answers)
    chosen = [
        token
        for token, count in declined.items()
        if count > 1 and count / len(refusals) > 2 * answered[token] / max(len(answers), 1)
    ]
    covered = sum(declined[token] for token in chosen) / len(refusals)
    if covered < 0.5:
        raise ExtractionError(
            "The first token does not tell this model's refusals from its answers: the tokens that mark them begin "
            f"{covered:.0%} of the refusals. Search without the screen (--exhaustive)."
        )
    return RefusalTokens(sorted(chosen), covered, sum(answered[token] for token in chosen) / max(len(answers), 1))
