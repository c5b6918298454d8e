"""Slots of requests: which token of a pass has which, and that a variant's slot is given away only when it is not needed."""

import pytest
import torch

from engine.errors import EngineError
from engine.runtime.interventions import Intervention, Interventions
from engine.runtime.requests import Asked, asked_of, checked
from engine.runtime.slots import Slots

WIDTH = 8


def made(num_slots: int = 2) -> tuple[Slots, list[Asked]]:
    """Slots on real tables, and what was built for them."""
    built: list[Asked] = []

    def make(asked: Asked) -> Intervention:
        built.append(asked)
        return Intervention(torch.eye(WIDTH)[:1], torch.full((1, 1), asked.alpha), torch.zeros(1, 1))

    tables = Interventions(num_sites=1, hidden_size=WIDTH, num_slots=num_slots, max_rank=1, max_tokens=32)
    return Slots(tables, make), built


def shares(slots: Slots, number: int) -> list[float]:
    """The share that each of a pass's tokens has taken out."""
    return [round(float(slots.tables.shares_SNK[slot, 0, 0]), 2) for slot in slots.tables.slots_T[:number].tolist()]


def test_tokens_follow_the_order_of_the_pass() -> None:
    slots, _ = made()
    slots.begin("a", Asked("v", 0.5), 3)
    slots.begin("b", None, 2)
    slots.begin("c", Asked("v", 0.25), 1)
    slots.fill(["c", "a", "b"], [1, 3, 2], {"a": 0, "b": 0, "c": 0})
    assert shares(slots, 6) == [0.25, 0.5, 0.5, 0.5, 0, 0]


def test_requests_of_one_variant_and_strength_share_a_slot() -> None:
    slots, built = made()
    slots.begin("a", Asked("v", 0.5), 3)
    slots.begin("b", Asked("v", 0.5), 3)
    slots.fill(["a", "b"], [1, 1], {"a": 3, "b": 3})
    assert built == [Asked("v", 0.5)]


def test_the_least_recently_used_slot_is_given_away() -> None:
    slots, built = made()
    for name, alpha in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        slots.begin(name, Asked("v", alpha), 1)
    for name in ("a", "b", "a", "c", "a"):
        slots.fill([name], [1], {name: 1})
    assert [asked.alpha for asked in built] == [0.1, 0.2, 0.3]
    slots.fill(["b"], [1], {"b": 1})
    assert [asked.alpha for asked in built] == [0.1, 0.2, 0.3, 0.2]
    assert shares(slots, 1) == [0.2]


def test_a_pass_that_needs_every_slot_gets_them() -> None:
    slots, _ = made()
    for name, alpha in (("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)):
        slots.begin(name, Asked("v", alpha), 1)
    slots.fill(["a", "b"], [1, 1], {"a": 1, "b": 1})
    slots.fill(["d", "c"], [1, 1], {"d": 1, "c": 1})
    assert shares(slots, 2) == [0.4, 0.3]


def test_a_request_that_ended_is_forgotten() -> None:
    slots, _ = made()
    slots.begin("a", Asked("v", 0.5), 1)
    slots.end({"a", "unknown"})
    slots.fill(["a"], [1], {"a": 1})
    assert shares(slots, 1) == [0]


def test_a_variant_that_is_put_anew_is_built_anew() -> None:
    slots, built = made()
    slots.begin("a", Asked("v", 0.5), 1)
    slots.fill(["a"], [1], {"a": 1})
    slots.forget("v")
    slots.fill(["a"], [1], {"a": 1})
    assert len(built) == 2


@pytest.mark.parametrize("start", [0, 2, 4, 5, 6, 9])
@pytest.mark.parametrize("length", [1, 3, 8])
@pytest.mark.parametrize("positions", ["prompt", "response", "last", "every"])
def test_positions_count_from_the_prompt_s_end(positions: str, start: int, length: int) -> None:
    slots, _ = made()
    slots.begin("a", Asked("v", 0.5, positions=positions), 5)
    slots.fill(["a"], [length], {"a": start})
    inside = {
        "prompt": lambda place: place < 5,
        "response": lambda place: place >= 5,
        "last": lambda place: place == 4,
        "every": lambda place: True,
    }[positions]
    assert shares(slots, length) == [0.5 if inside(place) else 0 for place in range(start, start + length)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("v", float("nan")), "alpha takes a finite number; found nan"),
        (Asked("v", "much"), "alpha takes a finite number; found 'much'"),
        (Asked("v", add=float("inf")), "add takes a finite number; found inf"),
        (Asked("v", 1.0, site="outputs"), "the sites inputs, block:0 to block:2; found 'outputs'"),
        (Asked("v", 1.0, site="block:3"), "found 'block:3'"),
        (Asked("v", 1.0, site="inputs+writes"), "found 'writes'"),
        (Asked("v", 1.0, positions="first"), "positions takes every, prompt, response, last; found 'first'"),
    ],
    ids=["nan", "text", "infinite", "site", "block", "joined", "positions"],
)
def test_what_a_request_may_not_ask_for_is_named(asked: Asked, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        checked(asked, ("inputs",), 3)


def test_a_request_comes_back_from_its_extra_arguments() -> None:
    asked = Asked("v", 0.7, 0.5, "block:2", "response")
    assert asked_of(asked.extra_args()) == asked


def test_nothing_asked_is_the_base_s_own_request() -> None:
    assert Asked("v", 0.0).extra_args() == {}
    assert Asked("v", 0.0).cache_salt() is None


def test_every_part_of_a_request_keys_its_cache() -> None:
    salts = [Asked("v", 1.0), Asked("w", 1.0), Asked("v", 0.5), Asked("v", 1.0, 0.5), Asked("v", 1.0, site="writes")]
    salts.append(Asked("v", 1.0, positions="prompt"))
    assert len({asked.cache_salt() for asked in salts}) == len(salts)


def steady() -> Slots:
    """Slots filled for a pass of two requests; then what the pass reads is wiped, so that it shows who fills it again."""
    slots, _ = made()
    slots.begin("a", Asked("v", 0.5), 1)
    slots.begin("b", Asked("v", 0.25), 1)
    slots.fill(["a", "b"], [1, 1], {"a": 1, "b": 1})
    slots.tables.slots_T.zero_()
    return slots


def test_a_pass_of_the_same_requests_is_not_filled_again() -> None:
    slots = steady()
    slots.fill(["a", "b"], [1, 1], {"a": 2, "b": 2})
    assert slots.tables.slots_T.tolist()[:2] == [0, 0]


@pytest.mark.parametrize(
    ("requests", "expected"), [(["b", "a"], [0.25, 0.5]), (["b"], [0.25]), (["a", "b", "c"], [0.5, 0.25, 0.0])]
)
def test_a_pass_of_others_is_filled(requests: list[str], expected: list[float]) -> None:
    slots = steady()
    slots.fill(requests, [1] * len(requests), dict.fromkeys(requests, 2))
    assert shares(slots, len(requests)) == expected


def test_a_name_that_begins_anew_is_filled_anew() -> None:
    slots = steady()
    slots.begin("a", Asked("v", 1.0), 1)
    slots.fill(["a", "b"], [1, 1], {"a": 1, "b": 2})
    assert shares(slots, 2) == [1.0, 0.25]


def test_positions_that_move_are_filled_each_time() -> None:
    slots, _ = made()
    slots.begin("a", Asked("v", 0.5, positions="prompt"), 2)
    slots.fill(["a"], [1], {"a": 1})
    slots.fill(["a"], [1], {"a": 2})
    assert shares(slots, 1) == [0]


def test_a_variant_that_is_put_anew_is_filled_anew() -> None:
    slots = steady()
    slots.forget("v")
    slots.fill(["a", "b"], [1, 1], {"a": 2, "b": 2})
    assert shares(slots, 2) == [0.5, 0.25]
