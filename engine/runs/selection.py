"""The selection prompts of a sweep or a study, held apart from what directions and figures are made of."""

from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from extraction.prompts import EMBEDDED_PREFIX, Pair, load_pairs, take

EMBEDDED_SELECTION = "embedded:selection_pairs"


HELD_OUT = 4  # of this many training pairs, one chooses instead


def with_selection(config: RunConfig) -> tuple[RunConfig, list[Pair]]:
    """The configuration with its selection settled, and the selection pairs."""
    data = config.data
    if data.selection_pairs is None and data.train_pairs.startswith(EMBEDDED_PREFIX):
        data = data.model_copy(update={"selection_pairs": EMBEDDED_SELECTION})
    if data.selection_pairs is not None:
        return config.model_copy(update={"data": data}), load_pairs(data.selection_pairs)
    pairs = take(load_pairs(data.train_pairs), data.num_pairs, data.train_pairs)
    kept = len(pairs) - len(pairs) // HELD_OUT
    if kept == len(pairs):
        raise EngineError(
            f"{data.train_pairs} has {len(pairs)} pairs, too few to hold some out. Name others with --set "
            "data.selection_pairs=FILE (bin/sweep: --selection FILE)."
        )
    say(
        f"held out: the last {len(pairs) - kept} of {len(pairs)} training pairs make no directions (others: data.selection_pairs)"
    )
    data = data.model_copy(update={"num_pairs": kept})
    return config.model_copy(update={"data": data}), pairs[kept:]


def texts_of(pairs: list[Pair]) -> list[str]:
    """Both sides of every pair."""
    return [text for pair in pairs for text in (pair.declined, pair.answered)]


def check_apart(first: str, texts: list[str], second: str, others: list[str]) -> None:
    """Raise EngineError for a prompt that is in both, but for case and spaces."""
    known = {_normal(text) for text in others}
    if shared := [text for text in texts if _normal(text) in known]:
        raise EngineError(
            f"{len(shared)} {first} prompt(s) are also {second} prompts, such as {shared[0]!r}. A rate on prompts that shaped "
            "the winner flatters it: take them out of one of the files."
        )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
