"""map.json: which kinds of refusal share a direction, and whether removing one kind's direction ends declining of another.

Every request is harmless. Directions are made of training pairs, the layer and the kinds are chosen on selection pairs, and the
table is of test pairs, which share no template with either.
"""
# K = kinds of refusal, H = hidden size

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.display.progress import say
from engine.environment import describe
from engine.errors import EngineError
from engine.evaluate.candidates import BASE, RANDOM, SINGLE, SUBSPACE, Candidate
from engine.rollout.directions import transformers_model
from engine.runs.requests import ANSWERABLE, DECLINED, Request
from engine.runs.schemas import Row
from engine.scoring.calibrations import judge_of
from engine.scoring.grader import Grader
from engine.study import map_geometry as geometry
from engine.study.effect import make_candidate
from engine.study.map_answers import Answers, declined_rate, table_row, watched_requests
from engine.study.map_claims import Column, distinct_claim, drops, knob_claim
from engine.study.opening import Study
from engine.study.refusal_sets import SELECTION, TEST, TRAIN, RefusalSet, load_sets

KIND, OWN_PART, SHARED, ALL = "kind", "own part", "shared", "all"
TWINS = 0.5  # a twin side that is declined half as often as the other tells no refusal


@dataclass(frozen=True)
class MapOptions:
    """What a map takes.

    sets: a folder of sets; None for the embedded ones. kinds: some of them; none for all.
    layers: tried on selection requests, one is taken for the whole map.
    least: the share of a kind's selection requests that the base has to decline for it to be in the map.
    controls: random directions. max_tokens: new tokens of a response.
    """

    sets: Path | None
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    least: float
    controls: int
    max_tokens: int


def make_map(study: Study, options: MapOptions, grader: Grader) -> Row:
    """The map of the study's model. Raises EngineError where it declines no kind."""
    sets = load_sets(options.sets, options.kinds, study.session.config.data.system)
    check_rendered(study, sets)
    answers = Answers(study, sets, grader, options.max_tokens)
    try:
        return _Map(study, options, answers, sets).make() | {"judge": judge_of(grader), **describe()}
    finally:
        answers.close()


def check_rendered(study: Study, sets: Sequence[RefusalSet]) -> None:
    """Render every prompt: a template or a length that cannot serve shows before a model loads."""
    for one in sets:
        for split, pairs in one.pairs.items():
            for side in ("declined", "answered"):
                study.session.render_texts([getattr(pair, side) for pair in pairs], f"{one.name}, {split}, {side} side")


class _Map:
    """The steps of a map, in order: behaviour of the base, directions, the layer, removals, claims."""

    def __init__(self, study: Study, options: MapOptions, answers: Answers, sets: Sequence[RefusalSet]) -> None:
        self.study, self.options, self.answers, self.all = study, options, answers, sets
        self.session, self.position = study.session, study.session.config.directions.position
        self.estimator = study.session.config.directions.estimator
        self.base = Candidate(BASE, "nothing (the base)", (), 0.0, study.session.base)

    def make(self) -> Row:
        kinds = self.behaviour()
        sets = [one for one in self.all if kinds[one.name]["in_map"]]
        if not sets:
            said = ", ".join(f"{name} {row['selection']['declined']['value']:.2f}" for name, row in kinds.items())
            raise EngineError(
                f"The base declines none of the kinds in {self.options.least:.0%} of their selection requests ({said}), so there "
                "is nothing to map. Lower --least, or give sets that it declines with --sets DIR."
            )
        say(f"map: {len(sets)} of {len(self.all)} kinds are declined: {', '.join(one.name for one in sets)}")
        model = transformers_model(self.session)
        train = geometry.streams_of(self.session, model, sets, TRAIN, self.position)
        test = geometry.streams_of(self.session, model, sets, TEST, self.position)
        del model
        layer, tried = self.choose_layer(sets, train)
        rows = self.removals(sets, train, layer)
        watched = watched_requests(sets)
        table = [
            table_row(self.answers, candidate, what, watched) | {"of_mean": self._of_mean(candidate, train, layer)}
            for candidate, what in rows
        ]
        columns = [self.column(one.name, watched[one.name], rows) for one in sets]
        base = {name: self.answers.declined(self.base, requests) for name, requests in watched.items()}
        templates = {name: [request.category for request in requests] for name, requests in watched.items()}
        between = geometry.at_layer(sets, train, self.position, layer)
        names = [one.name for one in sets]
        return {
            "kinds": kinds,
            "mapped": names,
            "least": self.options.least,
            "position": self.position,
            "estimator": self.estimator,
            "layer": layer,
            "layers_tried": tried,
            "table": table,
            "random_band": _band(table),
            "drops": drops(columns),
            "between": between,
            "by_layer": geometry.by_layer(sets, train, self.position),
            "reading": geometry.readings(sets, train, test, layer, base, templates),
            "claims": {"distinct": distinct_claim(names, between["cosines"], between["p"]), "knob": knob_claim(columns)},
        }

    def behaviour(self) -> dict[str, Row]:
        """What the base declines of each kind and of its twins, and whether the kind is in the map: test requests then."""
        self._answer(self.all, SELECTION)
        found = {}
        for one in self.all:
            selection = {side: self._base_rate(one, SELECTION, side) for side in (DECLINED, ANSWERABLE)}
            declines, twins = (selection[side]["value"] or 0.0 for side in (DECLINED, ANSWERABLE))
            sizes = {split: len(pairs) for split, pairs in one.pairs.items()}
            in_map = declines >= self.options.least and twins <= TWINS * declines
            found[one.name] = {
                "pairs": sizes,
                "in_map": in_map,
                SELECTION: selection,
                TEST: dict.fromkeys((DECLINED, ANSWERABLE)),
            }
        mapped = [one for one in self.all if found[one.name]["in_map"]]
        if mapped:
            self._answer(mapped, TEST)
        for one in mapped:
            found[one.name][TEST] = {side: self._base_rate(one, TEST, side) for side in (DECLINED, ANSWERABLE)}
        return found

    def _answer(self, sets: Sequence[RefusalSet], split: str) -> None:
        sides = [one.requests(split, side) for one in sets for side in (DECLINED, ANSWERABLE)]
        self.answers.make([self.base], [request for requests in sides for request in requests])

    def _base_rate(self, one: RefusalSet, split: str, side: str) -> Row:
        requests = one.requests(split, side)
        return declined_rate(self.answers.declined(self.base, requests), requests)

    def choose_layer(self, sets: Sequence[RefusalSet], train: Mapping[str, geometry.OfSet]) -> tuple[int, list[Row]]:
        """The layer at which removing each kind's own direction leaves most readable answers, on selection requests."""
        if len(self.options.layers) == 1:
            return self.options.layers[0], []
        rows = []
        for layer in self.options.layers:
            units_KH = geometry.units_at(sets, train, self.position, layer, self.estimator)
            scores = [self._readable(one, unit_H, layer) for one, unit_H in zip(sets, units_KH, strict=True)]
            rows.append({"layer": layer, "answered": float(np.mean(scores))})
        best = max(rows, key=lambda row: row["answered"])
        say(f"map: layer {best['layer']} leaves the most readable answers to selection requests ({best['answered']:.2f})")
        return int(best["layer"]), rows

    def _readable(self, one: RefusalSet, unit_H: Tensor, layer: int) -> float:
        """The mean over a kind's selection requests of not declining times coherence, with the direction removed."""
        requests = one.requests(SELECTION, DECLINED)
        candidate = make_candidate(self.session, SINGLE, f"{one.name}, layer {layer}", unit_H[None])
        self.answers.make([candidate], requests)
        values = (1 - self.answers.declined(candidate, requests)) * self.answers.coherence(candidate, requests)
        return float(np.nanmean(values))

    def removals(
        self, sets: Sequence[RefusalSet], train: Mapping[str, geometry.OfSet], layer: int
    ) -> list[tuple[Candidate, str]]:
        """Every candidate of the table and what it stands for, answered on all kinds' test requests."""
        units_KH = geometry.units_at(sets, train, self.position, layer, self.estimator)
        rows = [(self.base, BASE)]
        rows += [(self._candidate(one.name, unit_H[None]), KIND) for one, unit_H in zip(sets, units_KH, strict=True)]
        if len(sets) > 1:
            shared_H = geometry.shared_unit(units_KH, geometry.of_layer(sets, train, self.position, layer))
            rows.append((self._candidate("what they share most", shared_H[None]), SHARED))
            rows.append((self._candidate("all of them", units_KH, SUBSPACE), ALL))
            parts = {one.name: geometry.own_part(units_KH, place) for place, one in enumerate(sets)}
            rows += [
                (self._candidate(f"own part of {name}", part[None]), OWN_PART) for name, part in parts.items() if part is not None
            ]
        drawn = geometry.random_units(train, self.position, layer, self.options.controls, self.session.config.sweep.seed)
        rows += [(self._candidate(f"random {number}", unit_KH, RANDOM), RANDOM) for number, unit_KH in enumerate(drawn, 1)]
        requests = [request for some in watched_requests(sets).values() for request in some]
        self.answers.make([candidate for candidate, _ in rows], requests)
        working = {candidate.name for candidate in self.answers.rollouts.working([candidate for candidate, _ in rows])}
        return [(candidate, what) for candidate, what in rows if candidate.name in working]

    def _candidate(self, name: str, directions_KH: Tensor, kind: str = SINGLE) -> Candidate:
        return make_candidate(self.session, kind, name, directions_KH.to(torch.float64))

    def _of_mean(self, candidate: Candidate, train: Mapping[str, geometry.OfSet], layer: int) -> float:
        edit = candidate.variant.edit
        return 0.0 if edit is None else geometry.share_of_mean(edit.basis_HK, train, self.position, layer)

    def column(self, name: str, requests: Sequence[Request], rows: Sequence[tuple[Candidate, str]]) -> Column:
        """A kind's test requests under each kind's removal; those that a judge gave no verdict on somewhere are left out."""
        flags = [(candidate.name, what, self.answers.declined(candidate, requests)) for candidate, what in rows]
        known = ~np.isnan(np.stack([found for _, _, found in flags])).any(axis=0)
        templates = [request.category for request, there in zip(requests, known, strict=True) if there]
        by_kind = {one: found[known] for one, what, found in flags if what == KIND}
        random = [found[known] for _, what, found in flags if what == RANDOM]
        base = next(found[known] for _, what, found in flags if what == BASE)
        return Column(name, templates, base, by_kind, random or [base])


def _band(table: Sequence[Row]) -> dict[str, list[float]] | None:
    """The lowest and highest declined share under random directions, of each kind; None without any."""
    drawn = [row["declined"] for row in table if row["what"] == RANDOM]
    if not drawn:
        return None
    return {name: [min(row[name]["value"] for row in drawn), max(row[name]["value"] for row in drawn)] for name in drawn[0]}
