"""transfer.json: a run's directions on another model of the same width (a fine-tune, a sibling), or beside a LoRA's writes."""
# L = layers, H = hidden size, K = directions

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editing.adapter import read_adapter
from editing.apply import gain_of
from editing.plan import PROJECTIONS
from engine.configs.schema import RunConfig
from engine.environment import describe
from engine.errors import EngineError
from engine.evaluate.candidates import BASE, SINGLE, Candidate
from engine.rollout.directions import prompt_streams, streams_at, transformers_model
from engine.runs.of_config import given_layers, model_name
from engine.runs.requests import DECLINED
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.scoring.grader import Grader
from engine.study.effect import NUM_REQUESTS, effect_rows, make_candidate
from engine.study.geometry import by_layer
from engine.study.opening import Study, held_out_sides
from extraction.directions import directions_from, unit_directions, unit_rows


def open_other(study: Study, path: str) -> Session:
    """The session of another model with the run's data. Raises EngineError where its width is another."""
    config: RunConfig = study.session.config
    asked = study.session.arithmetic.asked
    model = config.model.model_copy(update={"path": path, "revision": None, "dtype": asked})
    other = Session(config.model_copy(update={"model": model, "data": study.session.config.data}))
    found, wanted = other.checkpoint.hidden_size, study.session.checkpoint.hidden_size
    if found != wanted:
        raise EngineError(
            f"{path} has hidden size {found}; the directions of {config.model.path} have width {wanted}. A direction goes to a "
            "model of the same width."
        )
    other.check_layers(given_layers(config), "directions.layers: the other model lacks it")
    other.check_swappable()
    other.check_prompts()
    held_out_sides(other, study.held_out)
    return other


def make_transfer(study: Study, other: Session, grader: Grader) -> Row:
    """Both models' directions by layer, how the run's separate on the other model, and what either edit does there."""
    directions = study.directions()
    position = directions.position
    positions = other.offsets([position])
    model = transformers_model(other)
    train = streams_at(other, model, positions)[position]
    held = prompt_streams(model, *held_out_sides(other, study.held_out), positions, None, "held-out pairs")[position]
    del model
    own = directions_from(train, position, directions.estimator)
    shared = min(len(own.direction_LH), len(directions.direction_LH))
    units = {name: unit_rows(found.direction_LH[:shared]) for name, found in (("run", directions), ("own", own))}
    layers = given_layers(study.session.config)
    named = {"transferred": directions, "own": own}
    candidates = [Candidate(BASE, "base", (), 0.0, other.base)]
    size = other.config.directions.k
    candidates += [make_candidate(other, SINGLE, name, unit_directions(found, layers), size) for name, found in named.items()]
    return {
        "other": model_name(other.config, other.base_hash),
        "layers": layers,
        "num_layers": [study.session.checkpoint.num_layers, other.checkpoint.num_layers],
        "cosine": (units["run"] * units["own"]).sum(dim=-1).tolist(),
        "random": _random_band(other.checkpoint.hidden_size),
        "run": by_layer(units["run"], train, held, study.held_out_kinds),
        "own": by_layer(units["own"], train, held, study.held_out_kinds),
        "effect": effect_rows(other, study.folder("transfer"), candidates, study.requests(DECLINED, NUM_REQUESTS), grader),
        **describe(),
    }


def make_adapter_comparison(study: Study, adapter: Path) -> Row:
    """|cosine| of every adapted tensor's leading write direction to the direction of every layer.

    A LoRA writes B A x: its leading left singular vector is the direction it writes most, B's column where its rank is 1;
    behind a norm with gain g it writes diag(g) B A x.
    """
    units_LH, session = unit_rows(study.directions().direction_LH), study.session
    width = units_LH.shape[1]
    factors, rows = read_adapter(adapter), []
    for tensor in session.plan.writers:  # what else an adapter has writes elsewhere: queries, keys, values, gates
        name = tensor.name
        if tensor.role not in PROJECTIONS or name not in factors or factors[name][1].shape[0] != width:
            continue
        factor_KI, factor_HK = factors[name]
        gain_H = gain_of(session.checkpoint, tensor)
        write_H, share = leading_write(factor_KI, factor_HK if gain_H is None else gain_H[:, None] * factor_HK.double())
        rows.append({"tensor": name, "rank": factor_HK.shape[1], "share": share, "cosine": (units_LH @ write_H).abs().tolist()})
    if not rows:
        raise EngineError(
            f"{adapter} adapts none of this model's tensors that write into its stream (o_proj, down_proj, of width {width})."
        )
    band = _random_band(width)
    return {"adapter": adapter.name, "rows": rows, "random": band, "layers": given_layers(study.session.config), **describe()}


def leading_write(factor_KI: Tensor, factor_HK: Tensor) -> tuple[Tensor, float]:
    """Leading left singular vector of B A, (H,), and its share of the squared singular values; without forming B A."""
    left_HK, triangle_KK = torch.linalg.qr(factor_HK.double())
    small_KI = triangle_KK @ factor_KI.double()
    vectors_KK, values_K, _ = torch.linalg.svd(small_KI, full_matrices=False)
    total = float(values_K.square().sum())
    return left_HK @ vectors_KK[:, 0], float(values_K[0] ** 2) / total if total else 0.0


def _random_band(width: int) -> list[float]:
    """Median and 97.5 % quantile of |cosine| between random directions of this width: a Beta(1/2, (H - 1)/2), rooted."""
    from scipy.stats import beta

    return [float(value) for value in np.sqrt(beta.ppf([0.5, 0.975], 0.5, (width - 1) / 2))]
