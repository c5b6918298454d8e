"""Where a trace ends and an answer begins, by markers of one token and of several."""

import pytest

from extraction.errors import ExtractionError
from extraction.positions import check_position
from extraction.thinking import Markers, Parts, place_in, written_markers

ONE = Markers((90,), (91,))
SEVERAL = Markers((90, 91, 92), (90, 93, 92))
ALWAYS = Markers((90,), (91,), always=True)


@pytest.mark.parametrize(
    ("markers", "prompt", "response", "parts"),
    [
        (ONE, [1, 2], [90, 5, 6, 91, 7, 8], Parts(1, 3, 4)),
        (ONE, [1, 90], [5, 6, 91, 7], Parts(0, 2, 3)),
        (ONE, [1, 90, 91], [7, 8], Parts(None, 0, 0)),
        (ONE, [1, 90, 91, 3, 90], [5, 91, 7], Parts(0, 1, 2)),
        (ONE, [1, 2], [7, 8], Parts(None, 0, 0)),
        (ONE, [1, 2], [90, 5, 6], Parts(1, 3, 3, unfinished=True)),
        (ONE, [1, 90], [5, 6], Parts(0, 2, 2, unfinished=True)),
        (ONE, [1, 90], [], Parts(0, 0, 0, unfinished=True)),
        (ONE, [1, 2], [5, 91, 7], Parts(0, 1, 2)),
        (ONE, [1, 90], [91, 7], Parts(0, 0, 1)),
        (ONE, [1, 90], [5, 91], Parts(0, 1, 2)),
        (ALWAYS, [1, 2], [5, 6], Parts(0, 2, 2, unfinished=True)),
        (SEVERAL, [1], [90, 91, 92, 5, 90, 93, 92, 7], Parts(3, 4, 7)),
        (SEVERAL, [1], [90, 91, 92, 5, 90, 93], Parts(3, 6, 6, unfinished=True)),
    ],
)
def test_a_response_is_told_apart(markers: Markers, prompt: list[int], response: list[int], parts: Parts) -> None:
    assert markers.parts(prompt, response) == parts


@pytest.mark.parametrize(("name", "place"), [("think_end", 3), ("think_end:-1", 2), ("think_end:-2", 1), ("answer_start", 4)])
def test_a_position_is_a_place_in_the_response(name: str, place: int) -> None:
    assert place_in(name, Parts(1, 3, 4)) == place


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("think_end:-3", Parts(1, 3, 4), "its trace has 2 tokens, so no position think_end:-3"),
        ("think_end", Parts(None, 0, 0), "it has no trace"),
        ("think_end:-1", Parts(1, 3, 3, unfinished=True), "it has a trace without an end"),
    ],
)
def test_a_response_without_the_position_is_named(name: str, parts: Parts, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        place_in(name, parts)


@pytest.mark.parametrize("name", ["trace", "think_end", "think_end:-12", "answer_start"])
def test_positions_of_traces_are_known(name: str) -> None:
    assert check_position(name) == name


@pytest.mark.parametrize("name", ["think_end:1", "think_end:-0", "trace:1"])
def test_near_names_are_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ExtractionError, match="of a model that thinks first trace"):
        check_position(name)


def test_a_templates_markers_are_found() -> None:
    assert written_markers("{{ '<think>' }}{% if x %}</think>{% endif %}") == ("<think>", "</think>")


def test_a_template_without_traces_has_none() -> None:
    assert written_markers("{{ messages[0]['content'] }}") is None
