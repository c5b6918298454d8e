"""The operator on the CPU against float64 arithmetic written out token by token, in every form that it has."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine.runtime.interventions import Intervention, Interventions

HIDDEN, SITES = 40, 3
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 0.04, torch.float16: 0.004}


def rows(seed: int, k: int) -> Tensor:
    """Orthonormal rows (k, H)."""
    return torch.linalg.qr(torch.randn(HIDDEN, k, generator=torch.Generator().manual_seed(seed)))[0].T.contiguous()


def tables(**settings: int | bool) -> Interventions:
    """Six slots: odd ones take out, even ones add; site 1 is left alone by all."""
    made = Interventions(num_sites=SITES, hidden_size=HIDDEN, num_slots=6, max_rank=4, max_tokens=64, **settings)
    for slot in range(1, 7):
        k = 1 + slot % 4
        shares, offsets = (torch.full((SITES, k), 0.3 * slot), torch.zeros(SITES, k))
        shares[1] = 0
        made.put(slot, Intervention(rows(slot, k), shares, offsets) if slot % 2 else Intervention(rows(slot, k), offsets, shares))
    return made


def written_out(hidden_TH: Tensor, residual_TH: Tensor | None, slots: Sequence[int], site: int) -> Tensor:
    """What the tables above stand for, one token at a time."""
    out = hidden_TH.double().clone()
    for token, slot in enumerate(slots):
        if slot == 0 or site == 1:
            continue
        q_KH, strength = rows(slot, 1 + slot % 4).double(), 0.3 * slot
        stream_H = hidden_TH[token].double() + (0 if residual_TH is None else residual_TH[token].double())
        for q_H in q_KH:
            out[token] += -strength * (q_H @ stream_H) * q_H if slot % 2 else strength * q_H
    return out


def vectors(number: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(number, HIDDEN, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "with residual"])
@pytest.mark.parametrize(
    "slots",
    [[3] * 9, [0, 3, 3, 0, 4], [1, 0, 2, 3, 4, 5, 6, 6, 0, 1], [5]],
    ids=["one slot", "few slots", "many slots", "one token"],
)
def test_it_is_the_arithmetic_written_out(slots: list[int], with_residual: bool, dtype: torch.dtype) -> None:
    made, hidden_TH = tables(), vectors(len(slots), dtype)
    residual_TH = vectors(len(slots), dtype, seed=1) if with_residual else None
    expected_TH = written_out(hidden_TH, residual_TH, slots, site=2)
    made.fill(slots, [1] * len(slots))
    made.act(hidden_TH, 2, residual_TH)
    error = float((hidden_TH.double() - expected_TH).abs().max())
    print(f"largest error {error:.1e}")
    assert error < TOLERANCE[dtype]


def test_each_site_may_have_its_own_rows() -> None:
    made = Interventions(num_sites=2, hidden_size=HIDDEN, num_slots=1, max_rank=2, max_tokens=8, rows_by_site=True)
    own = torch.stack([rows(1, 2), rows(2, 2)])
    made.put(1, Intervention(own, torch.ones(2, 2), torch.zeros(2, 2)))
    made.fill([1], [3])
    hidden_TH = vectors(3)
    made.act(hidden_TH, 1)
    assert float((hidden_TH @ rows(2, 2).T).abs().max()) < 1e-6
    assert float((hidden_TH @ rows(1, 2).T).abs().max()) > 0.1


@pytest.mark.parametrize("slots", [[0, 2, 0, 3], [0, 1, 2, 3, 4, 5, 6, 0]], ids=["few slots", "many slots"])
def test_slot_zero_keeps_its_bits(slots: list[int]) -> None:
    made, hidden_TH = tables(), vectors(len(slots), torch.bfloat16)
    before_TH = hidden_TH.clone()
    made.fill(slots, [1] * len(slots))
    made.act(hidden_TH, 0)
    assert torch.equal(hidden_TH[0], before_TH[0])
    assert not torch.equal(hidden_TH[1], before_TH[1])


def test_a_site_that_nothing_is_done_at_keeps_its_bits() -> None:
    made, hidden_TH = tables(), vectors(5)
    before_TH = hidden_TH.clone()
    made.fill([1, 2], [3, 2])
    made.act(hidden_TH, 1)
    assert torch.equal(hidden_TH, before_TH)


def test_padding_behind_the_requests_is_left_alone() -> None:
    made, hidden_TH = tables(), vectors(8)
    before_TH = hidden_TH.clone()
    made.fill([1], [8])
    made.fill([2], [5])
    made.act(hidden_TH, 0)
    assert torch.equal(hidden_TH[5:], before_TH[5:])


def test_a_pass_of_the_base_after_others_is_left_alone() -> None:
    made, hidden_TH = tables(), vectors(8)
    before_TH = hidden_TH.clone()
    made.fill([1], [8])
    made.fill([0, 0], [4, 4])
    made.act(hidden_TH, 0)
    assert torch.equal(hidden_TH, before_TH)


def test_a_slot_that_is_written_again_holds_the_new_variant_alone() -> None:
    made, hidden_TH = tables(), vectors(4)
    made.put(3, Intervention(rows(9, 1), torch.ones(SITES, 1), torch.zeros(SITES, 1)))  # rank 1 over rank 4
    expected_TH = hidden_TH - (hidden_TH @ rows(9, 1).T) @ rows(9, 1)
    made.fill([3], [4])
    made.act(hidden_TH, 0)
    assert torch.allclose(hidden_TH, expected_TH, atol=1e-6)


def test_tables_stay_where_they_are() -> None:
    made = tables()
    before = [table.data_ptr() for table in made.buffers()]
    made.put(1, Intervention(rows(5, 2), torch.ones(SITES, 2), torch.zeros(SITES, 2)))
    made.fill([1, 2], [30, 30])
    assert [table.data_ptr() for table in made.buffers()] == before


def test_a_tracer_takes_it_as_one_node() -> None:
    made, seen = tables(), []

    def step(hidden_TH: Tensor) -> Tensor:
        hidden_TH = hidden_TH * 2
        made.act(hidden_TH, 0)
        return hidden_TH + 1

    def backend(module: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module.forward

    made.fill([3], [4])
    got_TH = torch.compile(step, fullgraph=True, backend=backend)(vectors(4))
    assert sum("intervene" in target for target in seen) == 1
    assert len(seen) == 3
    assert torch.equal(got_TH, step(vectors(4)))


@pytest.mark.parametrize(
    ("slot", "intervention", "message"),
    [
        (0, Intervention(rows(1, 1), torch.ones(SITES, 1), torch.zeros(SITES, 1)), "Slots are 1 to 6; found 0"),
        (7, Intervention(rows(1, 1), torch.ones(SITES, 1), torch.zeros(SITES, 1)), "Slots are 1 to 6; found 7"),
        (1, Intervention(rows(1, 5), torch.ones(SITES, 5), torch.zeros(SITES, 5)), "hold 4 directions; this variant has 5"),
        (1, Intervention(torch.eye(3), torch.ones(SITES, 3), torch.zeros(SITES, 3)), "width 3; this model's hidden size is 40"),
        (1, Intervention(torch.ones(3, 1, HIDDEN), torch.ones(SITES, 1), torch.zeros(SITES, 1)), "rows of 3 sites"),
    ],
    ids=["slot 0", "no such slot", "rank", "width", "rows by site"],
)
def test_what_does_not_fit_is_refused(slot: int, intervention: Intervention, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables().put(slot, intervention)
