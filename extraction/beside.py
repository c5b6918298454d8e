"""Several interventions in one pass: the rows of a batch are slot after slot, as many each, and a slot has its own.

A GPU's time with a small model is launches, of which fifty interventions beside each other need no more than one.
"""
# S = slots, B = prompts of a slot, T = tokens, K = directions, H = hidden size, N = prompts

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extraction.devices import follower
from extraction.hooks import decoder_blocks
from extraction.intervention import beside_bias, on_input, on_output, standing
from extraction.screening import Panel, Scores, kl_divergence, refusal_log_odds


@dataclass(frozen=True)
class Taken:
    """What each slot's output y loses: y - A (B^T y), with B read_SHK and A write_SHK; a slot of zeros keeps its bits."""

    read_SHK: Tensor
    write_SHK: Tensor


@contextmanager
def removals(model: nn.Module, taken: Mapping[str, Taken]) -> Iterator[None]:
    """Have each named module's output lose what its slots' `Taken` say, biases aside, while active; computed in float32."""
    changes = {id(own): _Removal(own) for own in taken.values()}
    modules = [(model.get_submodule(name), changes[id(own)]) for name, own in taken.items()]
    handles = [on_output(module, beside_bias(module, change)) for module, change in modules]
    with standing(handles):
        yield


@contextmanager
def additions(model: nn.Module, layers: Sequence[int | None], vectors_SH: Tensor) -> Iterator[None]:
    """Add each slot's vector to the stream that enters its block, at every token, while active. None: nothing is added.

    Layer L is what leaves the last block.
    """
    blocks, handles = decoder_blocks(model), []
    for layer in sorted({layer for layer in layers if layer is not None}):
        chosen_S1 = torch.tensor([[float(own == layer)] for own in layers], dtype=vectors_SH.dtype)
        change = _Addition(vectors_SH * chosen_S1)
        handles.append(on_output(blocks[-1], change) if layer == len(blocks) else on_input(blocks[layer], change))
    with standing(handles):
        yield


class _Removal:
    def __init__(self, taken: Taken) -> None:
        self._read_SHK = follower(taken.read_SHK.float())
        self._write_SKH = follower(taken.write_SHK.float().mT.contiguous())

    def __call__(self, output: Tensor) -> Tensor:
        exact = output.float()
        read_SHK, write_SKH = self._read_SHK(exact), self._write_SKH(exact)
        rows_SRH = exact.view(len(read_SHK), -1, exact.shape[-1])
        return torch.baddbmm(rows_SRH, rows_SRH @ read_SHK, write_SKH, alpha=-1).view_as(output).to(output.dtype)


class _Addition:
    def __init__(self, added_SH: Tensor) -> None:
        self._added_SH = follower(added_SH)

    def __call__(self, hidden_states: Tensor) -> Tensor:
        added_SH = self._added_SH(hidden_states)
        rows_SRH = hidden_states.reshape(len(added_SH), -1, hidden_states.shape[-1])
        return (rows_SRH + added_SH[:, None]).view_as(hidden_states)


def scores_beside(model: nn.Module, panel: Panel, token_ids: Sequence[int], slots: int) -> list[Scores]:
    """bypass and KL of every prompt for each slot but the first, in one pass over all; the slots' removals are active.

    The first slot is the base's, which the others diverge from: it is read in their batches, and so has their rounding.
    """
    first, num_prompts = panel.num_declined, panel.both.num_prompts
    bypass_SN = torch.zeros(slots, first, dtype=torch.float64)
    kl_SN = torch.zeros(slots, num_prompts - first, dtype=torch.float64)
    for part in panel.both.logits_beside(model, slots):
        index_B = torch.tensor(part.indices)
        declined_B = index_B < first
        if declined_B.any():
            odds = refusal_log_odds(part.logits_SBV[:, declined_B].flatten(0, 1), token_ids)
            bypass_SN[:, index_B[declined_B]] = odds.view(slots, -1).cpu()
        if not declined_B.all():
            answered_SBV = part.logits_SBV[:, ~declined_B]
            base_BV = answered_SBV[0].double().log_softmax(-1)
            for slot in range(1, slots):
                kl_SN[slot, index_B[~declined_B] - first] = kl_divergence(base_BV, answered_SBV[slot]).cpu()
    return [Scores(bypass_N, kl_N) for bypass_N, kl_N in zip(bypass_SN[1:], kl_SN[1:], strict=True)]


def induction_beside(model: nn.Module, panel: Panel, token_ids: Sequence[int], slots: int) -> Tensor:
    """Refusal log-odds of every answered prompt for each slot, (S, N) float64; the slots' additions are active."""
    induce_SN = torch.zeros(slots, panel.answered.num_prompts, dtype=torch.float64)
    for part in panel.answered.logits_beside(model, slots):
        odds = refusal_log_odds(part.logits_SBV.flatten(0, 1), token_ids)
        induce_SN[:, part.indices] = odds.view(slots, -1).cpu()
    return induce_SN
