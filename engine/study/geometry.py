"""geometry.json: what the directions of every layer are worth, on pairs that did not make them, and what they span.

Intervals, splits and swaps are over kinds of prompts, a pair's `category`; pairs without one are kinds of their own.
"""
# L = layers (0 to the last block's output), N = pairs, H = hidden size, R = draws

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.display.progress import Progress
from engine.environment import describe
from engine.rollout.controls import control_directions
from engine.rollout.directions import base_responses, pair_responses, prompt_streams, streams_at, transformers_model
from engine.runs.of_config import given_layers, model_name
from engine.runs.requests import prompts_of
from engine.runs.schemas import Row
from engine.study.estimates import OVER_KIND_LABELS, OVER_KIND_SPLITS, OVER_LABELS, OVER_SPLITS, over, table_of
from engine.study.opening import Study
from extraction.controls import SHUFFLED, Control
from extraction.directions import CONVENTION, Directions, Streams, directions_from, unit_rows
from extraction.estimators import ESTIMATORS, estimate
from extraction.kind_directions import kind_cosines
from extraction.kinds import Kinds
from extraction.pair_rank import pair_rank
from extraction.positions import is_generated
from extraction.residuals import padded_means
from extraction.separability import cohens_d, fit_probe, null_band, probe_right, separability
from extraction.stability import curve, doubling, stability
from extraction.structure import half_angles, shuffled_spectra, structure, unit_spectrum
from judging.statistics import rate

NULL_DRAWS = 200
PADDED_BATCH = 16
HALF_DIMENSIONS = (1, 2, 3, 5)
MEAN = "mean_difference"


@dataclass(frozen=True)
class GeometryOptions:
    """Measurements beside the run's own position and the mean difference."""

    positions: tuple[str, ...] = ()
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    unrelated: str | None = None


def make_geometry(study: Study, options: GeometryOptions) -> Row:
    """Everything but what needs generation with an edit."""
    session, main = study.session, study.session.config.directions.position
    positions = session.offsets([main, *options.positions])
    generated = any(map(is_generated, positions))
    responses = pair_responses(session) if generated else None
    held_responses = base_responses(session, [*study.sides[0], *study.sides[1]]) if generated else None
    model = transformers_model(session)
    train = streams_at(session, model, positions, responses)
    held = prompt_streams(model, *study.sides, positions, held_responses, "held-out pairs")
    found: Row = {
        "model": model_name(session.config, session.base_hash),
        "convention": CONVENTION,
        "position": main,
        "layers": _own_layers(study),
        "num_layers": session.checkpoint.num_layers,
        "num_pairs": len(session.pairs),
        "num_held_out": len(study.held_out),
        "num_kinds": Kinds.of(study.kinds, len(study.kinds)).count,
        "num_kinds_held_out": Kinds.of(study.held_out_kinds, len(study.held_out)).count,
        "kinds_note": kinds_note(study.kinds) or kinds_note(study.held_out_kinds),
        "positions": {},
    }
    with Progress("geometry", len(positions) * train[main].declined_LNH.shape[0], "layers") as progress:
        for name in positions:
            named = (session.config.directions.estimator, *options.estimators) if name == main else (MEAN,)
            found["positions"][name] = position_part(study, train[name], held[name], named, train[main], progress)
    found["probe"] = probe_part(train[main], held[main], study.held_out_kinds)
    found |= direction_parts(study, train[main])
    if options.unrelated is not None:
        found["unrelated"] = unrelated_part(study, model, options.unrelated, train[main], held[main])
    return found | describe()


def kinds_note(kinds: Sequence[str]) -> str | None:
    """A warning about intervals over few kinds; None where there are eight or more."""
    return Kinds.of(kinds, len(kinds)).note


def position_part(
    study: Study, train: Streams, held: Streams, estimators: Sequence[str], main: Streams, progress: Progress | None = None
) -> Row:
    """At one position: each estimator's separability by layer, null bands, and the cosine to the main position's direction."""
    mean_LH = estimate(MEAN, train.declined_LNH, train.answered_LNH)
    of_main_LH = estimate(MEAN, main.declined_LNH, main.answered_LNH)
    part: Row = {"estimators": {}, "null": [], "cosine_to_main": _cosines(mean_LH, of_main_LH)}
    for name in dict.fromkeys((MEAN, *estimators)):
        units_LH = mean_LH if name == MEAN else estimate(name, train.declined_LNH, train.answered_LNH)
        part["estimators"][name] = {"cosine_to_mean_difference": _cosines(units_LH, mean_LH)} | by_layer(
            units_LH, train, held, study.held_out_kinds
        )
    for layer in range(len(mean_LH)):
        part["null"].append(nulls(train, held, layer, study.kinds))
        if progress is not None:
            progress.advance()
    return part


def by_layer(units_LH: Tensor, train: Streams, held: Streams, kinds: Sequence[str] | None = None) -> Row:
    """Cohen's d and AUROC of every layer's direction on held-out pairs, with intervals; d on the training pairs beside it.

    kinds: of the held-out pairs.
    """
    rows: Row = {"cohens_d": [], "auroc": [], "train_cohens_d": []}
    for layer, unit_H in enumerate(units_LH):
        found = separability(*_projections(held, layer, unit_H[:, None]), kinds)
        rows["cohens_d"].append(table_of(found.cohens_d, held.num_pairs, over(kinds)))
        rows["auroc"].append(table_of(found.auroc, held.num_pairs, over(kinds)))
        rows["train_cohens_d"].append(float(cohens_d(*_projections(train, layer, unit_H[:, None]))))
    return rows


def nulls(train: Streams, held: Streams, layer: int, kinds: Sequence[str] | None = None) -> Row:
    """Null bands of a layer on the held-out pairs: of random directions, and of shuffled labels'."""
    drawn = null_directions(train, layer, kinds)
    return {name: null_band(*_projections(held, layer, drawn_RH.T)) for name, drawn_RH in drawn.items()}


def null_directions(train: Streams, layer: int, kinds: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Directions that mean nothing, (R, H) each, not normalised: shuffled labels' (of whole kinds), and random ones."""
    rng = np.random.default_rng(layer)
    signs_RN = torch.from_numpy(Kinds.of(kinds, train.num_pairs).signs(NULL_DRAWS, rng))
    shuffled_RH = signs_RN @ train.differences(layer) / train.num_pairs
    return {"shuffled": shuffled_RH, "random": torch.from_numpy(rng.standard_normal(tuple(shuffled_RH.shape)))}


def probe_part(train: Streams, held: Streams, kinds: Sequence[str] | None = None) -> Row:
    """Accuracy of a logistic regression on each layer's whole stream, held out and on its own pairs.

    The held-out interval is Wilson's for as many independent prompts as these are worth, by their kinds.
    """
    rows: Row = {"held_out": [], "train": []}
    for layer in range(train.declined_LNH.shape[0]):
        own, other = ([side[layer].double().numpy() for side in (s.declined_LNH, s.answered_LNH)] for s in (train, held))
        fitted = fit_probe(*own)
        rows["held_out"].append(asdict(rate(probe_right(fitted, *other).tolist(), kinds and [*kinds, *kinds])))
        rows["train"].append(float(probe_right(fitted, *own).mean()))
    return rows


def direction_parts(study: Study, train: Streams) -> Row:
    """Stability, cosines and structure of the mean differences, and the rank of the pairs."""
    seed, own, kinds = study.session.config.sweep.seed, _own_layers(study), study.kinds
    mean_LH = directions_from(train, "").mean_difference_LH
    shuffled_LH = control_directions(train, Control(SHUFFLED, 1, seed), "", MEAN).mean_difference_LH
    layers = range(1 if float(mean_LH[0].norm()) == 0 else 0, len(mean_LH))
    differences_NLH = np.stack([train.differences(layer).numpy() for layer in layers], axis=1)
    return {
        "norms": mean_LH.norm(dim=-1).tolist(),
        "cosines": {"true": _cosine_matrix(mean_LH), "shuffled": _cosine_matrix(shuffled_LH)},
        "stability": {layer: stability_of(differences_NLH[:, place], kinds) for place, layer in enumerate(layers)},
        "curves": {layer: curve_of(train.differences(layer).numpy(), kinds) for layer in own},
        "kinds": {layer: kind_cosines(train.differences(layer).numpy(), kinds) for layer in own},
        "structure": structure_of(differences_NLH, layers, kinds),
        "pair_rank": {layer: pair_rank_of(train, layer, kinds) for layer in own},
        "half_angles": half_angles(differences_NLH, [size for size in HALF_DIMENSIONS if size <= len(layers)], kinds),
        "unit_spectrum": unit_spectrum(mean_LH[list(layers)].numpy()).tolist(),
        "shuffled_spectrum": [
            table_of(triple, train.num_pairs, over(kinds, alone=OVER_LABELS, by_kind=OVER_KIND_LABELS))
            for triple in np.quantile(shuffled_spectra(differences_NLH, kinds), [0.5, 0.025, 0.975], axis=0).T.tolist()
        ],
    }


def pair_rank_of(train: Streams, layer: int, kinds: Sequence[str] | None = None) -> Row:
    """The number of directions along which the pairs of one layer refuse."""
    return asdict(pair_rank(train.declined_LNH[layer].double().numpy(), train.answered_LNH[layer].double().numpy(), kinds))


def stability_of(differences_NH: np.ndarray, kinds: Sequence[str] | None = None) -> Row:
    """One layer's stability, its triples as estimates."""
    found = stability(differences_NH, kinds)
    methods = {
        "split_half": over(kinds, alone=OVER_SPLITS, by_kind=OVER_KIND_SPLITS),
        "bootstrap": over(kinds),
        "null": over(kinds, alone=OVER_LABELS, by_kind=OVER_KIND_LABELS),
    }
    triples = {name: table_of(getattr(found, name), len(differences_NH), method) for name, method in methods.items()}
    return asdict(found) | triples


def curve_of(differences_NH: np.ndarray, kinds: Sequence[str] | None = None) -> list[Row]:
    """Stability over the number of pairs, in whole kinds."""
    points = curve(differences_NH, doubling(Kinds.of(kinds, len(differences_NH)).count), kinds)
    method = over(kinds, alone=OVER_SPLITS, by_kind=OVER_KIND_SPLITS)
    return [point | {"split": table_of(point["split"], point["pairs"], method)} for point in points]


def structure_of(differences_NLH: np.ndarray, layers: Sequence[int], kinds: Sequence[str] | None = None) -> Row | None:
    """The structure of the layers' directions, with the layers' own numbers; None where too few have a reliable direction."""
    found, count, method = structure(differences_NLH, kinds), len(differences_NLH), over(kinds)
    if found is None:
        return None
    figures: Row = {
        name: table_of(getattr(found, name), count, method) for name in ("first_share", "dimensions", "effective_rank")
    }
    figures["spectrum"] = [table_of(triple, count, method) for triple in found.spectrum]
    return asdict(found) | figures | {name: [layers[at] for at in getattr(found, name)] for name in ("layers", "longest_shared")}


def unrelated_part(study: Study, model: Any, source: str, train: Streams, held: Streams) -> Row:
    """The direction against prompts that are nobody's twin, and the twins' of as many pairs, on the same held-out pairs."""
    directions = unrelated_directions(study, model, source, train)
    fewer = Streams(train.declined_LNH[:, : directions.num_pairs], train.answered_LNH[:, : directions.num_pairs])
    mean_LH = estimate(MEAN, train.declined_LNH, train.answered_LNH)
    found: Row = {"source": source, "num_prompts": directions.num_pairs}
    for name, vectors_LH in (
        ("unrelated", directions.mean_difference_LH),
        ("twins", directions_from(fewer, "").mean_difference_LH),
    ):
        units_LH = unit_rows(vectors_LH)
        found[name] = {"cosine_to_mean_difference": _cosines(units_LH, mean_LH)} | by_layer(
            units_LH, fewer, held, study.held_out_kinds
        )
    return found


def unrelated_directions(study: Study, model: Any, source: str, train: Streams) -> Directions:
    """Mean of as many declined prompts as there are unrelated ones, less the unrelated prompts' mean, at the run's position."""
    session, position = study.session, study.session.config.directions.position
    listed = prompts_of(session.config.data, source)
    texts = [prompt.text for prompt in listed][: train.num_pairs]
    prompts = session.render_texts(texts, "unrelated prompts")
    offsets, last_layer = session.offsets([position]), train.declined_LNH.shape[0] - 1
    streams = prompt_streams(model, prompts, [], offsets, None, "unrelated prompts", last_layer=last_layer)[position]
    declined_mean_LH = train.declined_LNH[:, : len(prompts)].double().mean(dim=1)
    return Directions(declined_mean_LH, streams.declined_LNH.double().mean(dim=1), len(prompts), position)


def make_padded(study: Study) -> Row:
    """padded.json: cosine by layer between exact directions and those of naive padded batches (the study's comparison)."""
    from extraction.directions import extract_directions

    model = transformers_model(study.session)
    pairs, tokenizer = study.session.rendered_pairs(), study.session.renderer.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    sides = [padded_means(model, [getattr(pair, side) for pair in pairs], pad, PADDED_BATCH) for side in ("declined", "answered")]
    exact_LH = extract_directions(model, pairs).mean_difference_LH
    return {"batch": PADDED_BATCH, "cosine": _cosines(sides[0] - sides[1], exact_LH), **describe()}


def _own_layers(study: Study) -> list[int]:
    """The configuration's layers; the middle one where none is published."""
    if study.session.config.directions.layers == "sweep":
        return [study.session.checkpoint.num_layers // 2]
    return given_layers(study.session.config)


def _projections(streams: Streams, layer: int, directions_HR: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both sides' projections onto R directions, (R, N) each; (N,) for one."""
    sides = ((side[layer].double() @ directions_HR).T.numpy() for side in (streams.declined_LNH, streams.answered_LNH))
    declined, answered = (side[0] if len(side) == 1 else side for side in sides)
    return declined, answered


def _cosines(first_LH: Tensor, second_LH: Tensor) -> list[float]:
    """Cosine layer by layer; NaN where either has no direction."""
    cosines_L = (unit_rows(first_LH) * unit_rows(second_LH)).sum(dim=-1)
    missing_L = (first_LH.norm(dim=-1) == 0) | (second_LH.norm(dim=-1) == 0)
    return torch.where(missing_L, torch.nan, cosines_L).tolist()


def _cosine_matrix(vectors_LH: Tensor) -> list[list[float]]:
    return (unit_rows(vectors_LH) @ unit_rows(vectors_LH).T).tolist()
