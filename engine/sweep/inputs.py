"""What goes into a sweep: pairs that choose, requests that test, layers to try; and what cannot be tried is refused.

Imports nothing heavy: a finished sweep is printed, and a hopeless one refused, in a second.
"""

from dataclasses import dataclass

from engine.config import RunConfig, SweepConfig, parse_blocks
from engine.errors import EngineError
from engine.progress import say
from engine.session import DECLINED, Request, Session
from extraction.positions import LAST_INSTRUCTION
from extraction.prompts import EMBEDDED_PREFIX, Pair, load_pairs, take

EMBEDDED_SELECTION = "embedded:selection_pairs"
HELD_OUT = 4  # of this many training pairs, one chooses instead


@dataclass(frozen=True)
class SweepInputs:
    """`pairs` screen; their declined sides are the requests of the race (short) and of the selection (full length)."""

    pairs: list[Pair]
    test: list[Request]

    @property
    def race(self) -> list[Request]:
        return self._requests("race")

    @property
    def selection(self) -> list[Request]:
        return self._requests("selection")

    def _requests(self, split: str) -> list[Request]:
        return [
            Request(f"{split}/{index:05d}", split, DECLINED, pair.category, pair.declined)
            for index, pair in enumerate(self.pairs)
        ]


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


def check_inputs(config: RunConfig, train: list[Pair], inputs: SweepInputs) -> None:
    """Raise EngineError where a prompt would do two of training, choosing and testing, or where there are too few."""
    tested = [request.text for request in inputs.test]
    chosen, trained = (texts_of(pairs) for pairs in (inputs.pairs, train))
    check_apart("selection", chosen, "test", tested)
    check_apart("training", trained, "test", tested)
    check_apart("training", trained, "selection", chosen)
    for what, number in (("test requests", len(tested)), ("selection pairs", len(inputs.pairs))):
        if number < 2:
            raise EngineError(f"A sweep takes two {what} or more, found {number}: one gives no interval.")
    settings = {"sweep.first_round": config.sweep.first_round, "sweep.screen_prompts": config.sweep.screen_prompts}
    for name, needed in settings.items():
        if not config.sweep.exhaustive and needed > len(inputs.pairs):
            raise EngineError(
                f"{name} asks for {needed} selection pairs and there are {len(inputs.pairs)}. Give more, or lower it."
            )


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


def grid_layers(session: Session) -> list[int]:
    """The layers that a sweep tries, all in the model. Raises EngineError for one that is not."""
    last = session.checkpoint.num_layers
    layers = session.config.sweep.layers or list(range(1, last + 1))
    session.check_layers(layers, "sweep.layers or --layers")
    for name, numbers in listed_subspaces(session.config.sweep).items():
        session.check_layers(numbers, f"sweep.subspaces ('{name}')")
    return layers


def listed_subspaces(config: SweepConfig) -> dict[str, list[int]]:
    """The subspaces named by their layers, and those layers."""
    return {name: parse_blocks(name) for name in config.subspaces if not name.startswith("top")}


def top_sizes(config: SweepConfig) -> list[int]:
    """N of every topN."""
    return [int(name.removeprefix("top")) for name in config.subspaces if name.startswith("top")]


def check_grid(session: Session) -> None:
    """Raise EngineError for a grid that cannot be tried, before a model loads."""
    config, layers = session.config.sweep, grid_layers(session)
    fixed = [name for name in config.positions if name != LAST_INSTRUCTION]
    if fixed and any(0 in numbers for numbers in (layers, *listed_subspaces(config).values())):
        raise EngineError(f"Layer 0 has no direction at {fixed[0]}: that token is the same in every prompt. Leave it out.")
    sizes = top_sizes(config)
    if sizes and max(sizes) > len(layers) * len(config.positions):
        raise EngineError(
            f"top{max(sizes)} needs {max(sizes)} single directions and the grid has {len(layers)} layers. Widen it."
        )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
