"""The directions of a map's kinds: streams, noise-free cosines by layer, and what each reads: what is asked, what is done."""
# K = kinds of refusal, N = pairs, H = hidden size

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.rollout.controls import control_units
from engine.rollout.directions import prompt_streams
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.study.estimates import OVER_KINDS, table_of
from engine.study.refusal_sets import TRAIN, RefusalSet
from extraction.between_kinds import OfKind, between_kinds, cosines_of, grams, noise_free_cosines, reliability
from extraction.controls import RANDOM, Control
from extraction.directions import MEAN_DIFFERENCE, Streams, directions_from, unit_rows
from extraction.positions import LAST, LAST_INSTRUCTION
from extraction.separability import separability

READ_AT = (LAST_INSTRUCTION, LAST)
LEAST = 5  # prompts on a side
OWN_LEAST = 1e-3  # of a unit direction: a part that is shorter is rounding

OfSet = dict[str, Streams]
"""One kind's streams by position."""


def streams_of(session: Session, model: Any, sets: Sequence[RefusalSet], split: str, position: str) -> dict[str, OfSet]:
    """Residual streams of each kind's pairs of a split, at the run's position and at those that readings need."""
    positions = session.offsets(list(dict.fromkeys([position, *READ_AT])))
    found = {}
    for one in sets:
        sides = ([pair.declined for pair in one.pairs[split]], [pair.answered for pair in one.pairs[split]])
        declined, answered = (session.render_texts(texts, f"{one.name}, {split}") for texts in sides)
        found[one.name] = prompt_streams(model, declined, answered, positions, None, f"{one.name} ({split})")
    return found


def of_layer(sets: Sequence[RefusalSet], train: Mapping[str, OfSet], position: str, layer: int) -> list[OfKind]:
    """Each kind's paired differences at one layer, with their templates."""
    return [
        OfKind(train[one.name][position].differences(layer).numpy(), [pair.category for pair in one.pairs[TRAIN]]) for one in sets
    ]


def by_layer(sets: Sequence[RefusalSet], train: Mapping[str, OfSet], position: str) -> Row:
    """Noise-free cosines (K, K) and the directions' reliability (K,) at every layer from 1 on."""
    layers = range(1, len(next(iter(train.values()))[position].declined_LNH))
    kinds = {layer: of_layer(sets, train, position, layer) for layer in layers}
    return {
        "layers": list(layers),
        "cosines": [noise_free_cosines(kinds[layer]).tolist() for layer in layers],
        "reliability": [[reliability(kind) for kind in kinds[layer]] for layer in layers],
    }


def units_at(
    sets: Sequence[RefusalSet], train: Mapping[str, OfSet], position: str, layer: int, estimator: str = MEAN_DIFFERENCE
) -> Tensor:
    """Each kind's direction at one layer, by an estimator, (K, H) at unit length."""
    streams = [one_layer(train[one.name][position], layer) for one in sets]
    return unit_rows(torch.cat([directions_from(found, position, estimator).direction_LH for found in streams]))


def one_layer(streams: Streams, layer: int) -> Streams:
    """The streams of one layer alone."""
    return Streams(streams.declined_LNH[layer : layer + 1], streams.answered_LNH[layer : layer + 1])


def share_of_mean(basis_HK: Tensor, train: Mapping[str, OfSet], position: str, layer: int) -> float:
    """How much of the mean of all kinds' streams a removal takes: the length of its unit's part inside the basis, 0 to 1.

    Whatever takes that part moves every prompt, whether it is about refusing or not.
    """
    sides = [side for found in train.values() for side in vars(one_layer(found[position], layer)).values()]
    mean_H = torch.cat(sides, dim=1)[0].double().mean(dim=0)
    return float((basis_HK.T.double() @ (mean_H / mean_H.norm())).norm())


def shared_unit(units_KH: Tensor, kinds: Sequence[OfKind]) -> Tensor:
    """The direction that the kinds share most: the first component of their unit directions, weighed without noise, (H,)."""
    cosines_KK = cosines_of(grams(kinds, [np.ones((1, kind.units.count)) for kind in kinds]))[0]
    weights_K = torch.from_numpy(np.linalg.eigh(cosines_KK)[1][:, -1].copy())
    return unit_rows((weights_K @ units_KH)[None])[0]


def own_part(units_KH: Tensor, place: int) -> Tensor | None:
    """What a kind's direction has outside the span of the others', (H,); None where that is rounding."""
    others_KH = torch.cat([units_KH[:place], units_KH[place + 1 :]])
    basis_HK = torch.linalg.qr(others_KH.T).Q
    part_H = units_KH[place] - basis_HK @ (basis_HK.T @ units_KH[place])
    return part_H if float(part_H.norm()) > OWN_LEAST else None


def random_units(train: Mapping[str, OfSet], position: str, layer: int, draws: int, seed: int) -> list[Tensor]:
    """Directions of the covariance of all kinds' streams, (1, H) each."""
    alone = [one_layer(found[position], layer) for found in train.values()]
    pooled = Streams(*(torch.cat([getattr(one, side) for one in alone], dim=1) for side in ("declined_LNH", "answered_LNH")))
    return [
        control_units(pooled, Control(RANDOM, number, seed), [0], position, "mean_difference") for number in range(1, draws + 1)
    ]


def at_layer(sets: Sequence[RefusalSet], train: Mapping[str, OfSet], position: str, layer: int) -> Row:
    """Cosines with intervals, spectrum and own shares at the map's layer."""
    return asdict(between_kinds(of_layer(sets, train, position, layer)))


def readings(
    sets: Sequence[RefusalSet],
    train: Mapping[str, OfSet],
    test: Mapping[str, OfSet],
    layer: int,
    base: Mapping[str, np.ndarray],
    templates: Mapping[str, Sequence[str]],
) -> Row:
    """How each kind's direction reads its own test pairs at one layer, at the instruction's end and at the prompt's.

    asked: requests that may be declined against their twins. done: of the former, those that the base declined against those
    that it answered, where there are five of each. base: the base's declined flags.
    """
    found: Row = {}
    for one in sets:
        found[one.name] = {}
        for position in READ_AT:
            unit_H = units_at([one], train, position, layer)[0].numpy()
            streams = test[one.name][position]
            sides = [side[layer].double().numpy() @ unit_H for side in (streams.declined_LNH, streams.answered_LNH)]
            found[one.name][position] = _read(sides[0], sides[1], base[one.name], list(templates[one.name]))
    return found


def _read(declined_N: np.ndarray, answered_N: np.ndarray, did_N: np.ndarray, templates: list[str]) -> Row:
    asked = separability(declined_N, answered_N, templates).auroc
    did, did_not = did_N == 1, did_N == 0
    if min(did.sum(), did_not.sum()) < LEAST:
        return {"asked": table_of(asked, 2 * len(declined_N), OVER_KINDS), "done": None}
    own, other = ([name for name, inside in zip(templates, side, strict=True) if inside] for side in (did, did_not))
    done = separability(declined_N[did], declined_N[did_not], own, other).auroc
    return {
        "asked": table_of(asked, 2 * len(declined_N), OVER_KINDS),
        "done": table_of(done, int(did.sum() + did_not.sum()), OVER_KINDS),
    }
