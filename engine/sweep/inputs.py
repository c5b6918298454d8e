"""What goes into a sweep: pairs that choose, requests that test, layers to try; and what cannot be tried is refused.

Imports nothing heavy: a finished sweep is printed, and a hopeless one refused, in a second.
"""

from dataclasses import dataclass

from engine.config import RunConfig, SweepConfig, parse_blocks
from engine.errors import EngineError
from engine.progress import say
from engine.session import DECLINED, Request, Session
from extraction.prompts import EMBEDDED_PREFIX, Pair, load_pairs

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
    pairs = load_pairs(data.train_pairs)[: data.num_pairs]
    kept = len(pairs) - len(pairs) // HELD_OUT
    if kept == len(pairs):
        raise EngineError(
            f"{data.train_pairs} has {len(pairs)} pairs, too few to hold some out. Name others with --selection FILE."
        )
    say(
        f"selection: the last {len(pairs) - kept} of {len(pairs)} training pairs choose and make no directions (--selection FILE)"
    )
    data = data.model_copy(update={"num_pairs": kept})
    return config.model_copy(update={"data": data}), pairs[kept:]


def check_inputs(config: RunConfig, train: list[Pair], inputs: SweepInputs) -> None:
    """Raise EngineError where a prompt would both choose and test, or where the selection is too small for its rounds."""
    tested = {_normal(request.text) for request in inputs.test}
    for what, pairs in (("selection", inputs.pairs), ("training", train)):
        shared = [text for pair in pairs for text in (pair.declined, pair.answered) if _normal(text) in tested]
        if shared:
            raise EngineError(
                f"{len(shared)} {what} prompt(s) are also test requests, such as {shared[0]!r}: a rate on prompts that chose the "
                "winner flatters it. Take them out of one of the files."
            )
    settings = {"sweep.first_round": config.sweep.first_round, "sweep.screen_prompts": config.sweep.screen_prompts}
    for name, needed in settings.items():
        if not config.sweep.exhaustive and needed > len(inputs.pairs):
            raise EngineError(
                f"{name} asks for {needed} selection pairs and there are {len(inputs.pairs)}. Give more, or lower it."
            )


def grid_layers(session: Session) -> list[int]:
    """The layers that a sweep tries, all in the model. Raises EngineError for one that is not."""
    last = session.checkpoint.num_layers
    layers = session.config.sweep.layers or list(range(1, last + 1))
    session.check_layers(layers, "sweep.layers or --layers")
    for name in session.config.sweep.subspaces:
        if not name.startswith("top"):
            session.check_layers(parse_blocks(name), f"sweep.subspaces ('{name}')")
    return layers


def top_sizes(config: SweepConfig) -> list[int]:
    """N of every topN."""
    return [int(name.removeprefix("top")) for name in config.subspaces if name.startswith("top")]


def check_grid(session: Session) -> None:
    """Raise EngineError for a grid that cannot be tried, before a model loads."""
    layers = grid_layers(session)
    if 0 in layers and "last" in session.config.sweep.positions:
        raise EngineError("Layer 0 has no direction at the last token, which is the same for every prompt. Leave layer 0 out.")
    sizes = top_sizes(session.config.sweep)
    if sizes and max(sizes) > len(layers) * len(session.config.sweep.positions):
        raise EngineError(
            f"top{max(sizes)} needs {max(sizes)} single directions and the grid has {len(layers)} layers. Widen it."
        )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
