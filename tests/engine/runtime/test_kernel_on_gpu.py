"""The Triton kernel against float64 arithmetic, in CUDA graphs, and token by token. Needs a GPU; skipped without one."""

import itertools

import pytest
import torch
from torch import Tensor

from engine.runtime.interventions import Intervention, Interventions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on a GPU")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}  # of the largest number
SIZES, LENGTHS, RANKS, SLOTS = (576, 3072, 8192), (1, 7, 1024), (1, 3, 8), 5


def tables(width: int, rank: int) -> Interventions:
    """Five slots on three sites: odd ones take out, even ones add; site 1 is left alone."""
    made = Interventions(num_sites=3, hidden_size=width, num_slots=SLOTS, max_rank=8, max_tokens=2048, device="cuda")
    generator = torch.Generator().manual_seed(width + rank)
    for slot in range(1, SLOTS + 1):
        rows_KH = torch.linalg.qr(torch.randn(width, rank, generator=generator))[0].T.contiguous()
        strengths, nothing = torch.full((3, rank), 0.25 * slot), torch.zeros(3, rank)
        strengths[1] = 0
        made.put(slot, Intervention(rows_KH, strengths, nothing) if slot % 2 else Intervention(rows_KH, nothing, strengths))
    return made


def written_out(made: Interventions, hidden_TH: Tensor, residual_TH: Tensor, slots: list[int]) -> Tensor:
    """Site 2's change in float64."""
    out_TH, stream_TH = hidden_TH.double(), hidden_TH.double() + residual_TH.double()
    for slot in range(1, SLOTS + 1):
        at = torch.tensor([one == slot for one in slots], device="cuda")
        rows_KH = made.rows_SMKH[slot, 0, : int(made.ranks_SN[slot, 2])].double()
        change_TH = -0.25 * slot * (stream_TH @ rows_KH.T) @ rows_KH if slot % 2 else 0.25 * slot * rows_KH.sum(0)
        out_TH = torch.where(at[:, None], out_TH + change_TH, out_TH)
    return out_TH


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_is_the_arithmetic_written_out(dtype: torch.dtype) -> None:
    for width, rank, length in itertools.product(SIZES, RANKS, LENGTHS):
        made, slots = tables(width, rank), [place % (SLOTS + 1) for place in range(length)]
        hidden_TH, residual_TH = (torch.randn(length, width, device="cuda").to(dtype) for _ in range(2))
        expected_TH, before_TH = written_out(made, hidden_TH, residual_TH, slots), hidden_TH.clone()
        made.fill(slots, [1] * length)
        made.act(hidden_TH, 1, residual_TH)
        assert torch.equal(hidden_TH, before_TH)
        made.act(hidden_TH, 2, residual_TH)
        error = float((hidden_TH.double() - expected_TH).abs().max() / expected_TH.abs().max())
        assert error < TOLERANCE[dtype], (width, rank, length)
        assert torch.equal(hidden_TH[:: SLOTS + 1], before_TH[:: SLOTS + 1])  # slot 0


def test_a_token_gets_the_same_bits_alone_and_in_a_batch() -> None:
    made, slots = tables(3072, 3), [place % (SLOTS + 1) for place in range(64)]
    hidden_TH = torch.randn(64, 3072, device="cuda").bfloat16()
    alone_TH = hidden_TH.clone()
    made.fill(slots, [1] * 64)
    made.act(hidden_TH, 0)
    for place, slot in enumerate(slots):
        made.fill([slot], [1])
        made.act(alone_TH[place : place + 1], 0)
    assert torch.equal(hidden_TH, alone_TH)


def test_a_captured_graph_reads_tables_as_they_are_when_it_is_replayed() -> None:
    made, given_TH = tables(3072, 3), torch.randn(64, 3072, device="cuda").bfloat16()
    work_TH = given_TH.clone()
    made.fill([1], [64])
    made.act(work_TH, 0)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work_TH.copy_(given_TH)
        made.act(work_TH, 0)
    for slot in (1, 2, 0):
        made.fill([slot], [64])
        graph.replay()
        expected_TH = given_TH.clone()
        made.act(expected_TH, 0)
        assert torch.equal(work_TH, expected_TH)
