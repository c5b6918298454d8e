"""reading.json: does the token at the end of the instruction read what is asked, and the tokens after it what will be done?

The pair of readings of Zhao et al. 2025 ("LLMs Encode Harmfulness and Refusal Separately"): a direction at the last
instruction token, and one after the template's tokens, each asked to tell (a) requests of the declined kind from
answerable ones and (b) among requests of the declined kind, those that the model declined from those it answered.
"""
# L = layers, N = prompts, H = hidden size

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from engine.environment import describe
from engine.errors import EngineError
from engine.rollout.directions import prompt_streams, streams_at, transformers_model
from engine.runs.files import ROLLOUTS, SCORES
from engine.runs.requests import ANSWERABLE, DECLINED
from engine.runs.schemas import Row
from engine.scoring.summary import mean_of_repeats, read_scores
from engine.study.estimates import OVER_KINDS, OVER_PROMPTS, over, table_of
from engine.study.geometry import kinds_note, null_directions
from engine.study.opening import Study
from extraction.directions import Streams
from extraction.estimators import estimate
from extraction.positions import LAST, LAST_INSTRUCTION
from extraction.separability import null_band, separability

POSITIONS = (LAST_INSTRUCTION, LAST)
LEAST = 5  # prompts on a side


def base_behaviour(study: Study) -> dict[str, bool]:
    """Whether the base declined each request, by prompt id: the run's rollouts, by its first judge.

    Raises EngineError where the run has none, and where one side is too small to be told from the other.
    """
    folder, base = study.run_dir.path, study.session.base.hash
    if not all((folder / name).is_file() for name in (ROLLOUTS, SCORES)):
        raise EngineError(
            f"{folder} has no scored responses. Run bin/rollout --variant {study.session.config.variant} first: this reading "
            "needs to know which requests the base declined."
        )
    scores = next(iter(read_scores(folder / SCORES).values()))
    graded = mean_of_repeats(scores.filter(pc.equal(scores["variant_hash"].cast(pa.string()), base)))
    declined = {row["prompt_id"]: row["declined"] for row in graded.to_pylist() if row["declined"] is not None}
    counts = [sum(value == side for key, value in declined.items() if key.startswith(DECLINED)) for side in (True, False)]
    if min(counts) < LEAST:
        raise EngineError(
            f"The base declined {counts[0]} requests of the declined kind and answered {counts[1]}; this reading takes at least "
            f"{LEAST} of each."
        )
    return declined


def make_reading(study: Study, behaviour: dict[str, bool]) -> Row:
    """Both directions by layer: their cosine, and how each tells what is asked and what is done, on the run's requests."""
    session = study.whole
    positions = study.session.offsets(POSITIONS)
    requests = [request for request in session.requests if request.prompt_id in behaviour]
    model = transformers_model(session)
    train = streams_at(study.session, model, positions)
    prompts = session.render(requests, "test requests")
    found = prompt_streams(model, prompts, [], positions, None, "requests")
    expected = np.array([request.kind for request in requests])
    did = np.array([behaviour[request.prompt_id] for request in requests])
    asked, answerable = expected == DECLINED, expected == ANSWERABLE
    units = {name: estimate("mean_difference", train[name].declined_LNH, train[name].answered_LNH) for name in POSITIONS}
    categories = [request.category for request in requests]
    sides = {"asked": (asked, answerable), "done": (asked & did, asked & ~did)}
    return {
        "positions": {
            name: {
                what: separations(units[name], train[name], found[name].declined_LNH, places, study.kinds, categories)
                for what, places in sides.items()
                if all(place.sum() >= LEAST for place in places)
            }
            for name in POSITIONS
        },
        "cosine": (units[LAST] * units[LAST_INSTRUCTION]).sum(dim=-1).tolist(),
        "counts": {
            "declined": int((asked & did).sum()),
            "answered": int((asked & ~did).sum()),
            "answerable": int(answerable.sum()),
        },
        "kinds_note": kinds_note(categories),
        **describe(),
    }


def separations(
    units_LH: Tensor,
    train: Streams,
    resid_LNH: Tensor,
    sides: tuple[np.ndarray, np.ndarray],
    train_kinds: Sequence[str],
    kinds: Sequence[str],
) -> Row:
    """AUROC by layer, with intervals, of projections of two groups of prompts, and the bands of directions that mean nothing.

    sides: masks of the groups, (N,) each. kinds: of the N prompts; train_kinds: of the pairs that made the directions.
    `within_auroc` compares prompts of one kind alone: pooled AUROC can come from kinds that are declined more often.
    """
    rows: Row = {"auroc": [], "within_auroc": [], "within_kinds": 0, "null": []}
    first_N, second_N = sides
    count = int(first_N.sum() + second_N.sum())
    own, other = ([kind for kind, inside in zip(kinds, side_N, strict=True) if inside] for side_N in sides)
    for layer, unit_H in enumerate(units_LH):
        resid_NH = resid_LNH[layer].double().numpy()
        projected_N = resid_NH @ unit_H.numpy()
        found = separability(projected_N[first_N], projected_N[second_N], own, other)
        rows["auroc"].append(table_of(found.auroc, count, over([*own, *other], alone=OVER_PROMPTS)))
        rows["within_auroc"].append(table_of(found.within_auroc, count, OVER_KINDS))
        rows["within_kinds"] = found.within_kinds
        drawn = {name: rows_RH.numpy() for name, rows_RH in null_directions(train, layer, train_kinds).items()}
        bands = {
            name: null_band(rows_RH @ resid_NH[first_N].T, rows_RH @ resid_NH[second_N].T) for name, rows_RH in drawn.items()
        }
        rows["null"].append({name: band["auroc"] for name, band in bands.items()})
    return rows
