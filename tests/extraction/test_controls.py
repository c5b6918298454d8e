"""Controls: shuffled labels by kind, and random directions with the stream's covariance."""

import torch

from engine.rollout.controls import control_directions
from extraction.controls import Control, as_long, controls, random_weights, swapped_places
from extraction.directions import Streams, extract_at
from extraction.rendering import RenderedPair
from extraction.residuals import collect
from tests.tiny import tiny_model

KINDS = [f"kind {number}" for number in range(10) for _ in range(4)]


def test_shuffled_labels_exchange_whole_kinds_half_of_them() -> None:
    places = set(swapped_places(KINDS, Control("shuffled", 1, 0)))
    swapped = {kind for place, kind in enumerate(KINDS) if place in places}
    assert len(swapped) == 5
    assert places == {place for place, kind in enumerate(KINDS) if kind in swapped}


def test_few_kinds_are_exchanged_pair_by_pair() -> None:
    assert len(swapped_places(["a"] * 20 + ["b"] * 21, Control("shuffled", 1, 0))) == 20


def test_draws_differ_by_number_and_repeat_by_seed() -> None:
    first, second, again = (swapped_places(KINDS, Control("shuffled", number, 0)) for number in (1, 2, 1))
    assert first == again != second


def test_there_are_as_many_of_each_sort_as_asked_for() -> None:
    assert [control.name for control in controls(2, 0)] == ["shuffled1", "shuffled2", "random1", "random2"]


def test_random_directions_have_the_streams_own_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    spread_H = torch.tensor([40.0, 5.0, 1.0, 0.2], dtype=torch.float64)
    stream_NH = torch.randn(60, 4, generator=generator, dtype=torch.float64) * spread_H + 100
    drawn = torch.stack([random_weights(30, Control("random", number, 0)) @ stream_NH for number in range(1, 2001)])
    expected_HH = 60 * torch.cov(stream_NH.T, correction=0)
    found_HH = torch.cov(drawn.T)
    ratio_H = found_HH.diagonal() / expected_HH.diagonal()
    print("variance over the stream's, channel by channel:", [f"{ratio:.2f}" for ratio in ratio_H.tolist()])
    assert torch.allclose(ratio_H, torch.ones(4, dtype=torch.float64), atol=0.15)


def test_a_control_is_as_long_as_the_difference_at_each_layer() -> None:
    drawn, difference = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    assert torch.allclose(as_long(drawn, difference).norm(dim=-1), difference.norm(dim=-1))


def test_controls_of_one_pass_are_those_of_every_prompts_stream() -> None:
    """The streamed sums against streams that transformers' own pass kept prompt by prompt."""
    model = tiny_model("llama", torch.float32)
    pairs = [RenderedPair([1, 5 + number, 90 + number % 3], [1, 6 + number, 80]) for number in range(40)]
    drawn = controls(2, 7)
    streamed = extract_at(model, pairs, {"last": -1}, controls=drawn, kinds=KINDS).controls
    sides = [collect(model, [getattr(pair, side) for pair in pairs], [-1])[:, :, 0] for side in ("declined", "answered")]
    for control in drawn:
        expected = control_directions(Streams(*sides), control, "last", "mean_difference", KINDS).mean_difference_LH
        found = streamed[control.name]["last"].mean_difference_LH
        assert torch.allclose(found[1:], expected[1:], atol=1e-5), control.name
