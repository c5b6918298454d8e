"""Templates found by edit distance, against a plain recursion and planted templates."""

import functools

import pytest

from extraction.clusters import edit_distance, near_pairs, template_clusters
from extraction.prompts import load_prompts


def plain_distance(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    @functools.cache
    def to_here(mine: int, theirs: int) -> int:
        if not mine or not theirs:
            return mine + theirs
        replaced = to_here(mine - 1, theirs - 1) + (first[mine - 1] != second[theirs - 1])
        return min(to_here(mine - 1, theirs) + 1, to_here(mine, theirs - 1) + 1, replaced)

    return to_here(len(first), len(second))


@pytest.mark.parametrize(("first", "second"), [("a b c d", "a c d e"), ("", "a b"), ("a b a b", "b a b a"), ("a", "a")])
def test_the_edit_distance_is_the_recursions(first: str, second: str) -> None:
    words = tuple(first.split()), tuple(second.split())
    assert edit_distance(*words) == plain_distance(*words)


def test_every_near_pair_is_found_and_no_other() -> None:
    texts = [prompt.text for prompt in load_prompts("embedded:test_requests")[:80]]
    found = set(near_pairs(texts, texts, 0.34))
    words = [tuple("".join(sign if sign.isalnum() or sign == "_" else " " for sign in text.casefold()).split()) for text in texts]
    expected = {
        (one, other)
        for one, mine in enumerate(words)
        for other, theirs in enumerate(words)
        if plain_distance(mine, theirs) <= int(0.34 * max(len(mine), len(theirs)))
    }
    assert found == expected


def test_texts_are_joined_through_others() -> None:
    chain = [
        "one two three four five six",
        "one two three four five x",
        "one two three four y x",
        "quite another text altogether",
    ]
    assert template_clusters(chain, 0.2) == [0, 0, 0, 1]
