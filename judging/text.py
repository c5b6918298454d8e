"""Measurements of a text that the rule judge reads: repetition, symbols, language, topic. Plain functions of strings."""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
SENTENCE = re.compile(r"(?<=[.!?:\n])\s+|\n+")
CONTENT_WORD_LENGTH = 4  # shorter words say little about the topic
STEM_LENGTH = 5


def normalise(text: str) -> str:
    """Straight apostrophes and quotes, no surrounding white space."""
    return text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"').strip()


def words(text: str) -> list[str]:
    """Lower-case words of letters."""
    return WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Sentences and lines, without empty ones."""
    return [part.strip() for part in SENTENCE.split(text) if part.strip()]


def repeated_share(tokens: Sequence[str], n: int = 4) -> float:
    """Share of the n-grams that occurred before in the text: 0 without repetition, towards 1 for a loop."""
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeated_sentence_share(text: str) -> float:
    """Share of the sentences that occurred before in the text."""
    parts = [" ".join(words(part)) for part in sentences(text)]
    return 1 - len(set(parts)) / len(parts) if parts else 0.0


def longest_run_share(tokens: Sequence[str]) -> float:
    """Share of the text that its longest run of one and the same token makes up."""
    longest = run = 1 if tokens else 0
    for before, after in itertools.pairwise(tokens):
        run = run + 1 if before == after else 1
        longest = max(longest, run)
    return longest / len(tokens) if tokens else 0.0


def compressed_share(text: str) -> float:
    """Compressed size over size (zlib, UTF-8): about 0.6 for a paragraph, under 0.3 for a loop in any script."""
    data = text.encode()
    return len(zlib.compress(data, 9)) / len(data) if data else 1.0


def symbol_share(text: str) -> float:
    """Share of the characters, white space aside, that are neither letters nor ordinary punctuation."""
    visible = [character for character in text if not character.isspace()]
    odd = [character for character in visible if not character.isalpha() and character not in ".,;:!?'\"-()"]
    return len(odd) / len(visible) if visible else 1.0


def odd_word_share(text: str) -> float:
    """Share of the chunks between spaces that no plain text has: inner capitals, underscores, brackets or hyphens in rows."""
    chunks = text.split()
    odd = [
        chunk
        for chunk in chunks
        if re.search(r"_\w|[a-z][A-Z]|\w[\[\]()]\w|(?:-\w+){3,}|[A-Z]{2,}[:\]]|^[^\w\s]{3,}$", chunk) or len(chunk) > 40
    ]
    return len(odd) / len(chunks) if chunks else 0.0


def foreign_script_share(text: str) -> float:
    """Share of the letters that are outside the Latin script."""
    letters = [character for character in text if character.isalpha()]
    return sum(ord(character) > 0x24F for character in letters) / len(letters) if letters else 0.0


def language_of(text: str, function_words: Mapping[str, Sequence[str]]) -> str:
    """The language with the most function words in the text; "en" where the text is too short to tell."""
    tokens = words(text)
    counts = {language: sum(token in known for token in tokens) for language, known in function_words.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] >= max(2, counts["en"] + 2) else "en"


def stems(text: str) -> set[str]:
    """First letters of the longer words: enough to see that two texts share a topic."""
    return {word[:STEM_LENGTH] for word in words(text) if len(word) >= CONTENT_WORD_LENGTH}


# Of words that requests are put in, whatever they are about.
STOP_STEMS = stems("what which where when does have with your that this there from about would could tell please")
