"""Prompts that share a template: clusters of texts that differ in a few words. Knows nothing of tokenizers or models."""
# N = texts

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NEAR = 0.34  # of the longer text's words: what may differ between two texts of one template
SAME = 0.2  # what may differ between near-duplicates


def template_clusters(texts: Sequence[str], limit: float = NEAR) -> list[int]:
    """The number of each text's cluster, (N,): texts joined, also through others, by a normalised edit distance up to `limit`.

    Single linkage over `near_pairs`. Numbers are in order of appearance.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = list(near_pairs(texts, texts, limit))
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
    graph = coo_array((np.ones(len(pairs)), (firsts, seconds)), shape=(len(texts), len(texts)))
    labels = connected_components(graph, directed=False)[1].tolist()
    order = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [order[label] for label in labels]


def near_pairs(texts: Sequence[str], others: Sequence[str], limit: float) -> Iterator[tuple[int, int]]:
    """Places (text, other) whose words' edit distance, over the longer one's number of words, is at most `limit`.

    Words are compared without case and punctuation. What has too few words in common is passed over unread.
    """
    mine, theirs = ([_words(text) for text in side] for side in (texts, others))
    shared = _shared_words(mine, theirs)
    for first, second in zip(*shared.nonzero(), strict=True):
        longer = max(len(mine[first]), len(theirs[second]))
        room = int(limit * longer)
        if longer - shared[first, second] <= room and edit_distance(mine[first], theirs[second]) <= room:
            yield int(first), int(second)


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein's distance (1966): words to insert, delete or replace."""
    row = list(range(len(second) + 1))
    for place, word in enumerate(first, 1):
        before, row[0] = row[0], place
        for column, other in enumerate(second, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (word != other))
    return row[-1]


def _words(text: str) -> list[str]:
    import re

    return re.findall(r"\w+", text.casefold())


def _shared_words(mine: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> "np.ndarray":
    """An upper bound of the words that two texts share, for every two of them."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=lambda words: words).fit([*mine, *theirs, ["a word at least"]])
    first, second = (counter.transform(side) for side in (mine, theirs))
    found = np.zeros((len(mine), len(theirs)), dtype=np.int32)
    most = max(first.max(), second.max())
    for level in range(1, int(most) + 1):  # sum over words of the smaller count
        found += ((first >= level).astype(np.int32) @ (second >= level).astype(np.int32).T).toarray()
    return found
