"""What `bin/ablate` measures: every setting of the edit at run time, of hooks and of the engine alike."""
# H = hidden size, K = directions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.runs.schemas import Row

HOOKS, ENGINE = "hooks", "engine"
DECLINED_SIDE, ANSWERED_SIDE = 0, 1


@dataclass(frozen=True)
class AblationOptions:
    """Shares removed, at which sites; multiples of the mean difference added; how many requests, how long.

    by: hooks on transformers, or the engine, all settings as one batch. draws: of random directions, each a subject.
    """

    alphas: tuple[float, ...]
    sites: tuple[str, ...]
    added: tuple[float, ...]
    num_prompts: int
    max_tokens: int
    controls: bool
    by: str = HOOKS
    draws: int = 1


@dataclass(frozen=True)
class Subject:
    """A thing that is removed or added: a basis, and the vector that is added at `layer`."""

    kind: str
    basis_HK: Tensor
    vector_H: Tensor
    layer: int


@dataclass(frozen=True)
class Setting:
    """A row to be measured: its heading, which requests it is measured on, and its subject; None for the base."""

    heading: Row
    side: int
    subject: Subject | None


def settings_of(subjects: Sequence[Subject], options: AblationOptions) -> Iterator[Setting]:
    """Every row's setting: the base on both kinds of requests, then what is taken out, then what is added."""
    for side, requests in enumerate(("declined", "answered")):
        yield Setting({"mode": "none", "requests": requests, "site": None, "subject": "base", "alpha": 0.0}, side, None)
    for site in options.sites:
        for subject in subjects:
            for alpha in options.alphas:
                heading = {"mode": "ablate", "requests": "declined", "site": site, "subject": subject.kind, "alpha": alpha}
                yield Setting(heading, DECLINED_SIDE, subject)
    for subject in subjects:
        for alpha in options.added:
            heading = {"mode": "add", "requests": "answered", "site": "layer", "subject": subject.kind, "alpha": alpha}
            yield Setting(heading, ANSWERED_SIDE, subject)
