"""Stand-ins for a model in bin/bench-cluster: a replica that answers at a set rate, its actor, rules that grade nothing."""

import os
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.configs.schema import SamplingConfig
from engine.evaluate.ray_engines import EngineActor, without_task
from engine.evaluate.rules import Graded
from engine.evaluate.tasks import Host, Task
from engine.inference.replica import Generation
from engine.models.variant import Variant
from judging.judgement import Item, Judgement

NUM_TEXTS = 256
WORDS = (
    *("the", "weather", "there", "is", "usually", "mild", "in", "May", "with", "light", "rain", "and", "long", "evenings"),
    *("that", "many", "people", "like", "because", "they", "can", "walk", "along", "a", "river", "before", "it", "gets", "dark"),
)
UNGRADED = Judgement(None, None, None, "", error="not graded: the load was asked for without its judge")


class ModellessReplica:
    """Answers like a Replica, `rate` responses of `tokens` tokens a second, out of a few made once."""

    def __init__(self, rate: float, tokens: int) -> None:
        self.rate = rate
        self.current: Variant | None = None
        self._made = [made(number, tokens) for number in range(NUM_TEXTS)]

    def swap(self, variant: Variant) -> float:
        self.current = variant
        return 0.0

    def forget_prompts(self) -> None:
        pass

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        *,
        together: bool = False,
        logprobs: bool = False,
        samples: Sequence[int] | None = None,
    ) -> Iterator[Generation]:
        """Responses that depend on the variant and the prompt's place alone."""
        assert self.current is not None
        first = int(self.current.hash, 16) % NUM_TEXTS
        time.sleep(len(prompts) / self.rate)
        for index in range(len(prompts)):
            text, token_ids = self._made[(first + index) % NUM_TEXTS]
            yield Generation(index, text, token_ids, "stop", -1.0 if logprobs else None)

    def mean_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        on_row: Callable[[], None] = lambda: None,
        *,
        shared: bool = False,
    ) -> list[float | None]:
        time.sleep(len(prompts) / self.rate)
        return [-1.0] * len(prompts)

    def opening_shares(self, prompts: Sequence[Sequence[int]], tokens: Collection[int], likeliest: int) -> list[float]:
        return [0.0] * len(prompts)


class ModellessActor(EngineActor):
    """Engine actors without engines, one in each thread that Ray gives this process.

    It leaves its process id in a file, for whoever is to kill it.
    """

    def __init__(self, arguments: dict[str, Any], base: Variant, place: int, count: int) -> None:
        (Path(arguments["pids"]) / str(place)).write_text(str(os.getpid()))
        self._arguments, self._threads = arguments, threading.local()

    def do(self, task: Task) -> dict[str, Any]:
        if not hasattr(self._threads, "host"):
            replica = ModellessReplica(self._arguments["rate"], self._arguments["tokens"])
            self._threads.host = Host(replica)  # type: ignore[arg-type]
        return without_task(self._threads.host.do(task))


class UngradedRules:
    """Takes what is offered to the judge and grades none of it."""

    ahead = 0

    def start(self, items: Sequence[Item], reference: float | None) -> Callable[[], Graded]:
        return lambda: Graded([UNGRADED] * len(items), 0.0)

    def close(self) -> None:
        pass


def made(number: int, tokens: int) -> tuple[str, list[int]]:
    """A response: a word for every 1.3 tokens, sentences of twelve words, and as many token ids."""
    rng = random.Random(number)
    words = [rng.choice(WORDS) + ("." if place % 12 == 11 else "") for place in range(round(tokens / 1.3))]
    return " ".join(words).capitalize(), [rng.randrange(49_152) for _ in range(tokens)]
