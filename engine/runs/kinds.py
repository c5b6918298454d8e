"""The kinds of a run's prompts: named by the files, found by shared templates, or none; and splits that respect them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from engine.display.progress import say
from engine.errors import EngineError
from extraction.clusters import SAME, near_pairs, template_clusters
from extraction.kinds import FEW
from extraction.prompts import Pair, Prompt

CATEGORY, AUTO, PROMPT = "category", "auto", "prompt"
TEST, SEEN = "test", "test_seen_kinds"
HELD_OUT = 4  # of this many kinds, or pairs, one is held out
Item = TypeVar("Item", Pair, Prompt)


def with_kinds(mode: str, pairs: Sequence[Pair], *prompts: Sequence[Prompt]) -> tuple[list[Pair], list[list[Prompt]]]:
    """Pairs and prompts with the kinds that `mode` gives them, the same names in all of them.

    category: as the files name them. auto: prompts that share a template. prompt: each prompt is its own.
    """
    if mode == CATEGORY:
        return list(pairs), [list(some) for some in prompts]
    if mode == PROMPT:
        return [replace(pair, category="") for pair in pairs], [[replace(one, category="") for one in some] for some in prompts]
    texts = [pair.declined for pair in pairs] + [prompt.text for some in prompts for prompt in some]
    found = iter(template_clusters(texts))
    labelled = [replace(pair, category=f"template {next(found)}") for pair in pairs]
    return labelled, [[replace(one, category=f"template {next(found)}") for one in some] for some in prompts]


def training_kinds(pairs: Sequence[Pair], tested: Sequence[str], seed: int) -> frozenset[str]:
    """Half of the kinds that pairs and test requests have in common, drawn by `seed`: those that make directions.

    Raises EngineError for too few kinds.
    """
    kinds = sorted({pair.category for pair in pairs if pair.category} & set(tested))
    if len(kinds) < 4:
        raise EngineError(
            f"--split kinds needs 4 kinds or more that training pairs and test requests have in common, and found {len(kinds)}. "
            "Give the files a category column, or find kinds with --kinds auto."
        )
    return frozenset(random.Random(seed).sample(kinds, len(kinds) // 2))


def held_out_places(pairs: Sequence[Pair], seed: int) -> frozenset[int]:
    """Places of a quarter of the pairs, drawn by `seed`: whole kinds where there are eight or more, else pairs."""
    generator = random.Random(seed)
    kinds = sorted({pair.category for pair in pairs if pair.category})
    wanted = len(pairs) // HELD_OUT
    if len(kinds) < FEW:
        return frozenset(generator.sample(range(len(pairs)), wanted))
    places: set[int] = set()
    for kind in generator.sample(kinds, len(kinds)):
        own = {place for place, pair in enumerate(pairs) if pair.category == kind}
        if len(places) + len(own) <= max(wanted, 1):
            places |= own
    return frozenset(places) or frozenset(generator.sample(range(len(pairs)), wanted))


def name_near_duplicates(first: str, texts: Sequence[str], second: str, others: Sequence[str]) -> None:
    """Say how many of `texts` differ from one of `others` by a fifth of their words or less, with an example."""
    found: dict[int, int] = {}
    for place, other in near_pairs(texts, others, SAME):
        found.setdefault(place, other)
    if found:
        place, other = next(iter(found.items()))
        say(
            f"near-duplicates: {len(found)} of {len(texts)} {first} prompts differ from a {second} prompt by a fifth of their "
            f"words or less, such as {texts[place]!r} and {others[other]!r}. Rates on them flatter; --split kinds tests others."
        )
