"""A sweep's inputs: pairs that choose, requests that test, layers to try. What cannot be tried is refused here.

Imports nothing heavy: a finished sweep is printed, and a hopeless one refused, in a second.
"""

from dataclasses import dataclass

from engine.configs.schema import RunConfig, SweepConfig, parse_numbers
from engine.errors import EngineError
from engine.runs.inputs import RunInputs
from engine.runs.requests import DECLINED, Request
from engine.runs.selection import check_apart, texts_of
from extraction.positions import LAST_INSTRUCTION
from extraction.prompts import Pair


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


def grid_layers(session: RunInputs) -> list[int]:
    """The layers that a sweep tries, all in the model. Raises EngineError for one that is not."""
    last = session.checkpoint.num_layers
    layers = session.config.sweep.layers or list(range(1, last + 1))
    session.check_layers(layers, "sweep.layers or --layers")
    for name, numbers in listed_subspaces(session.config.sweep).items():
        session.check_layers(numbers, f"sweep.subspaces ('{name}')")
    return layers


def listed_subspaces(config: SweepConfig) -> dict[str, list[int]]:
    """The subspaces named by their layers, and those layers."""
    return {name: sorted(set(parse_numbers(name))) for name in config.subspaces if not name.startswith("top")}


def top_sizes(config: SweepConfig) -> list[int]:
    """N of every topN."""
    return [int(name.removeprefix("top")) for name in config.subspaces if name.startswith("top")]


def check_grid(session: RunInputs) -> None:
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
