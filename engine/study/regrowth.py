"""regrowth.json: extract, remove, extract again: what separates declined from answered after the edit, and where.

Directions are extracted with the edit's projection on every write (hooks, no weights change). A "hydra" model grows
backups: what it had little of before the cut, orthogonal to what was cut, becomes larger.
"""
# L = layers, N = pairs, H = hidden size, K = directions removed, R = resamples

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from editing.projection import orthonormal_basis
from engine.environment import describe
from engine.rollout.controls import control_units
from engine.rollout.directions import prompt_streams, streams_at, transformers_model
from engine.runs.of_config import given_layers
from engine.runs.requests import DECLINED
from engine.runs.schemas import Row
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader, OfflineGrader
from engine.study.estimates import over, table_of
from engine.study.geometry import by_layer
from engine.study.opening import Study
from engine.study.panel import RequestPanel, make_panel, nothing, projects_norms, write_modules
from extraction.controls import RANDOM, SHUFFLED, Control
from extraction.directions import Streams, directions_from, unit_directions
from extraction.estimators import estimate
from extraction.intervention import ablation
from extraction.kinds import Kinds
from extraction.stability import signal_and_noise

MEAN = "mean_difference"
RECOVERED = 0.5  # of the base's d
RESAMPLES = 200


class Regrowth:
    """The base's streams, and how they look under an edit by hooks."""

    def __init__(self, study: Study, num_prompts: int, max_tokens: int, grader: Grader | None = None) -> None:
        session = study.session
        self.study = study
        self.model = transformers_model(session)
        self.position = session.config.directions.position
        self.writers = write_modules(session, self.model)
        self.train, self.held = self._streams(nothing(), "directions of the base")
        self.panel: RequestPanel = make_panel(session, self.model, study.requests(DECLINED, num_prompts), max_tokens, grader)

    def row(self, removed_HK: Tensor | None, label: str) -> tuple[Row, Streams]:
        """Separability by layer with a subspace removed, and the streams that it was measured on."""
        train, held = self.train, self.held
        if removed_HK is not None:
            train, held = self._streams(self._edit(removed_HK), label)
        units_LH = estimate(MEAN, train.declined_LNH, train.answered_LNH)
        row: Row = by_layer(units_LH, train, held, self.study.held_out_kinds)
        row["behaviour"] = self.panel.measure(nothing() if removed_HK is None else self._edit(removed_HK))
        base_LH = estimate(MEAN, self.train.declined_LNH, self.train.answered_LNH)
        row["cosine_to_base"] = (units_LH * base_LH).sum(dim=-1).tolist()
        if removed_HK is not None:
            row["cosine_to_removed"] = (units_LH @ removed_HK).norm(dim=-1).tolist()
            row["growth"] = [
                table_of(growth(self.train, train, layer, removed_HK, self.study.kinds), train.num_pairs, over(self.study.kinds))
                for layer in range(len(units_LH))
            ]
        return row, train

    def control(self, kind: str, number: int, layers: list[int]) -> Tensor:
        """One control's directions at the same layers, as a basis."""
        session = self.study.session
        config, kinds = session.config.directions, [pair.category for pair in session.pairs]
        drawn = Control(kind, number, session.config.sweep.seed)
        return orthonormal_basis(control_units(self.train, drawn, layers, self.position, config.estimator, kinds), k=config.k)

    def _edit(self, removed_HK: Tensor) -> AbstractContextManager[None]:
        return ablation(self.model, self.writers, removed_HK, biases=self.study.session.plan.scope.biases)

    def _streams(self, edit: AbstractContextManager[None], label: str) -> tuple[Streams, Streams]:
        session = self.study.session
        positions = session.offsets([self.position])
        with edit:
            train = streams_at(session, self.model, positions)[self.position]
            held = prompt_streams(self.model, *self.study.sides, positions, None, f"{label}, held out")[self.position]
        return train, held


def make_regrowth(study: Study, rounds: int, num_prompts: int, max_tokens: int, grader: Grader | None = None) -> Row:
    """Rounds of extracting at the configured layers and removing; and, for comparison, as many random directions as the
    last round's, and shuffled labels' directions as many as the first's."""
    regrowth, layers = Regrowth(study, num_prompts, max_tokens, grader), given_layers(study.session.config)
    row, streams = regrowth.row(None, "")
    found = [row | {"round": 0, "k": 0}]
    config, hidden_size = study.session.config.directions, study.session.checkpoint.hidden_size
    basis_HK = torch.empty(hidden_size, 0, dtype=torch.float64)
    for number in range(1, rounds + 1):
        units_KH = unit_directions(directions_from(streams, regrowth.position, config.estimator), layers)
        new_HK = orthonormal_basis(units_KH, k=config.k)
        basis_HK = orthonormal_basis(torch.cat([basis_HK, new_HK], dim=1).T)
        row, streams = regrowth.row(basis_HK, f"round {number}")
        found.append(row | {"round": number, "k": basis_HK.shape[1], "recovered": recovered(found[0], row)})
    drawn = [regrowth.control(RANDOM, number, layers).T for number in range(1, rounds + 1)]
    controls = {
        RANDOM: orthonormal_basis(torch.cat(drawn), k=basis_HK.shape[1]),
        SHUFFLED: regrowth.control(SHUFFLED, 1, layers),
    }
    rows = {name: regrowth.row(control_HK, name)[0] | {"k": control_HK.shape[1]} for name, control_HK in controls.items()}
    told = {"layers": layers, "norms": projects_norms(study.session), "judge": judge_of(grader or OfflineGrader())}
    return {"rounds": found, "controls": rows, **told, **describe()}


def growth(base: Streams, edited: Streams, layer: int, removed_HK: Tensor, kinds: Sequence[str] | None = None) -> list[float]:
    """How much longer the part of the mean difference orthogonal to what was removed became: [ratio, 2.5 %, 97.5 %].

    Lengths without the noise of few pairs (unbiased squared lengths); kinds are resampled whole, as both sides of the ratio.
    """
    parts = [streams.differences(layer) for streams in (base, edited)]
    before_NH, after_NH = ((part - part @ removed_HK @ removed_HK.T).numpy() for part in parts)
    count = len(before_NH)
    if not before_NH.any():  # layer 0 at the last token: the same token for every prompt
        return [float("nan")] * 3
    weights_RN = Kinds.of(kinds, count).weights(RESAMPLES, np.random.default_rng(0))
    weights_RN = weights_RN / weights_RN.sum(axis=1, keepdims=True)
    value = _ratio(*(np.array([signal_and_noise(part, kinds)[0]]) for part in (before_NH, after_NH)))[0]
    # A resample's mean has twice the noise of a mean of all pairs.
    noise = [2 * signal_and_noise(part, kinds)[1] / count for part in (before_NH, after_NH)]
    signals = [((weights_RN @ part) ** 2).sum(axis=1) - extra for part, extra in zip((before_NH, after_NH), noise, strict=True)]
    return [float(value), *(float(bound) for bound in np.nanquantile(_ratio(*signals), [0.025, 0.975]))]


def recovered(base: Row, row: Row) -> list[int]:
    """Layers whose d on held-out pairs is at least half of the base's, and whose AUROC's interval is above chance."""
    return [
        layer
        for layer, (before, after, auroc) in enumerate(zip(base["cohens_d"], row["cohens_d"], row["auroc"], strict=True))
        if after["value"] >= RECOVERED * before["value"] and auroc["low"] > 0.5
    ]


def _ratio(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    known = before > 0
    return np.sqrt(np.divide(np.maximum(after, 0), before, out=np.full(before.shape, np.nan), where=known))
