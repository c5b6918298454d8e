"""The tables that the operator reads: what each slot does at each site, and the slot of each token of a pass.

A torch module of fixed buffers, so that compiled and captured passes read what is put in later. Slot 0 is nothing. This
module knows neither vLLM nor variants; `engine.runtime.slots` gives slots to variants.
"""
# T = tokens, H = hidden size, S = slots, N = sites, K = rows of a slot; M = N, or 1 where sites share rows

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.runtime.operator import intervene
from engine.runtime.staging import Staging


@dataclass(frozen=True)
class Intervention:
    """What is done to the tokens of a slot: rows q_k, (K, H), or (N, K, H) where each site has its own.

    shares_NK: the share of each row's component that a site takes out; offsets_NK: the multiple of each row that it adds.
    A site with neither is left alone.
    """

    rows: Tensor
    shares_NK: Tensor
    offsets_NK: Tensor


class Interventions(nn.Module):
    """Interventions of up to `num_slots` kinds in one batch, each of up to `max_rank` rows.

    rows_by_site: each site has rows of its own, at `num_sites` times the memory. max_tokens: of a pass, padding included.
    Memory: (num_slots + 1) * max_rank * hidden_size * 4 bytes.
    """

    rows_SMKH: Tensor
    shares_SNK: Tensor
    offsets_SNK: Tensor
    ranks_SN: Tensor
    slots_T: Tensor

    def __init__(
        self,
        *,
        num_sites: int,
        hidden_size: int,
        num_slots: int,
        max_rank: int,
        max_tokens: int,
        rows_by_site: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.max_rank, self.num_slots, self.num_sites = max_rank, num_slots, num_sites
        size, places = num_slots + 1, num_sites if rows_by_site else 1
        tables = {
            "rows_SMKH": torch.zeros((size, places, max_rank, hidden_size), dtype=torch.float32, device=device),
            "shares_SNK": torch.zeros((size, num_sites, max_rank), dtype=torch.float32, device=device),
            "offsets_SNK": torch.zeros((size, num_sites, max_rank), dtype=torch.float32, device=device),
            "ranks_SN": torch.zeros((size, num_sites), dtype=torch.int32, device=device),
            "slots_T": torch.zeros(max_tokens, dtype=torch.int32, device=device),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self._staging, self._filled = Staging(self.slots_T), 0

    def put(self, slot: int, intervention: Intervention) -> None:
        """Write an intervention into a slot. Raises ValueError for slot 0 and for what does not fit."""
        rows = intervention.rows
        rank, width = rows.shape[-2:]
        if not 1 <= slot <= self.num_slots:
            raise ValueError(f"Slots are 1 to {self.num_slots}; found {slot}.")
        if rank > self.max_rank:
            raise ValueError(f"The buffers hold {self.max_rank} directions; this variant has {rank}.")
        if width != self.rows_SMKH.shape[3]:
            raise ValueError(f"The directions have width {width}; this model's hidden size is {self.rows_SMKH.shape[3]}.")
        if rows.dim() == 3 and self.rows_SMKH.shape[1] != len(rows):
            raise ValueError(f"This variant has rows of {len(rows)} sites; the buffers have rows of {self.rows_SMKH.shape[1]}.")
        self.shares_SNK[slot, :, :rank].copy_(intervention.shares_NK)
        self.offsets_SNK[slot, :, :rank].copy_(intervention.offsets_NK)
        self.rows_SMKH[slot, :, :rank].copy_(rows)
        acts_N = (intervention.shares_NK != 0).any(-1) | (intervention.offsets_NK != 0).any(-1)
        self.ranks_SN[slot].copy_(acts_N.to(torch.int32) * rank)

    def fill(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Name the slots of the next pass's tokens: of each request, in the pass's order, its slot and its number of tokens.

        Tokens behind the last request's, which pad a pass, have slot 0.
        """
        end = sum(lengths) if any(slots) else 0
        last = max(end, self._filled)
        if last == 0:
            return  # nothing is done to this pass, as to the one before
        host_T = self._staging.next_host()
        host_T[:end] = np.repeat(slots, lengths) if end else 0
        host_T[end:last] = 0
        self._staging.send(last)
        self._filled = end

    def act(self, hidden_TH: Tensor, site: int, residual_TH: Tensor | None = None) -> None:
        """Change a pass's vectors at a site in place; `residual_TH` is what is added to them before they are read."""
        tables = (self.rows_SMKH, self.shares_SNK, self.offsets_SNK, self.ranks_SN, self.slots_T)
        intervene(hidden_TH, residual_TH, *tables, site)


class TimedInterventions(Interventions):
    """Interventions that tell the seconds their operator took; on a CPU, where a call returns when it is done."""

    seconds = 0.0

    def act(self, hidden_TH: Tensor, site: int, residual_TH: Tensor | None = None) -> None:
        """As `Interventions.act`, on the clock."""
        started = time.perf_counter()
        super().act(hidden_TH, site, residual_TH)
        self.seconds += time.perf_counter() - started
