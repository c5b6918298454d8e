"""The selection prompts of a sweep or a study, held apart from what directions and figures are made of."""

from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.runs.inputs import RunInputs
from engine.runs.kinds import AUTO, HELD_OUT, held_out_places, with_kinds
from engine.runs.of_config import check_has_directions
from engine.runs.requests import pairs_of
from extraction.prompts import EMBEDDED_PREFIX, Pair, take

EMBEDDED_SELECTION = "embedded:selection_pairs"


def with_selection(config: RunConfig) -> tuple[RunConfig, list[Pair]]:
    """The configuration with its selection settled, and the selection pairs."""
    check_has_directions(config, "a sweep or a study")
    data = config.data
    if data.selection_pairs is None and data.train_pairs.startswith(EMBEDDED_PREFIX):
        data = data.model_copy(update={"selection_pairs": EMBEDDED_SELECTION})
    if data.selection_pairs is not None:
        if (data.split, data.kinds) == ("kinds", AUTO):
            raise EngineError(
                "--split kinds with pairs that choose needs kinds that all files name: give them a category column, or leave "
                "--kinds auto out."
            )
        chosen = pairs_of(data, data.selection_pairs)
        return config.model_copy(update={"data": data}), with_kinds(data.kinds, chosen)[0]
    listed = pairs_of(data, data.train_pairs)
    pairs = with_kinds(data.kinds, take(listed, data.num_pairs, data.train_pairs))[0]
    places = held_out_places(pairs, config.sweep.seed) if len(pairs) >= HELD_OUT else frozenset[int]()
    if not places:
        raise EngineError(
            f"{data.train_pairs} has {len(pairs)} pairs, too few to hold some out. Name others with --set "
            "data.selection_pairs=FILE (bin/sweep: --selection FILE)."
        )
    chosen = [pairs[place] for place in sorted(places)]
    say(
        f"held out: {len(chosen)} of {len(pairs)} training pairs, drawn by seed {config.sweep.seed}"
        f"{', whole kinds' if _whole_kinds(pairs, places) else ''}, make no directions (others: data.selection_pairs)"
    )
    data = data.model_copy(update={"hold_out": config.sweep.seed})
    return config.model_copy(update={"data": data}), chosen


def _whole_kinds(pairs: list[Pair], places: frozenset[int]) -> bool:
    inside, outside = ({pair.category for place, pair in enumerate(pairs) if (place in places) == held} for held in (True, False))
    return "" not in inside and not inside & outside


def texts_of(pairs: list[Pair]) -> list[str]:
    """Both sides of every pair."""
    return [text for pair in pairs for text in (pair.declined, pair.answered)]


def of_training_kinds(session: RunInputs, pairs: list[Pair]) -> list[Pair]:
    """The pairs that choose: all of them, or where kinds are split those of the kinds that make directions."""
    return _of_kinds(session, pairs, training=True)


def of_other_kinds(session: RunInputs, pairs: list[Pair]) -> list[Pair]:
    """The pairs that test: all of them, or where kinds are split those of the kinds that make no directions."""
    return _of_kinds(session, pairs, training=False)


def _of_kinds(session: RunInputs, pairs: list[Pair], *, training: bool) -> list[Pair]:
    if session.config.data.split != "kinds":
        return pairs
    seen = {pair.category for pair in session.pairs}
    return [pair for pair in pairs if (pair.category in seen) == training]


def check_tested_apart(session: RunInputs) -> None:
    """Raise EngineError for a test request that is a training prompt too; given directions were made elsewhere."""
    if session.config.directions.file is None:
        check_apart("training", texts_of(session.pairs), "test", [request.text for request in session.requests])


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
