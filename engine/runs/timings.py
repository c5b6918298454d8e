"""How fast this machine was, kept in the cache: what `--dry-run` tells the time of a job by.

A real job's stages leave their amounts and seconds. Where none was run, a product of matrices gives a rough figure.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from engine.environment import hardware
from engine.models.locate import read_store, write_store
from engine.paths import cache_dir
from engine.runs.inputs import RunInputs

FILE = "timings.json"
DIRECTIONS, ROLLOUTS, LIKELIHOODS, SCORES, SCREEN = "directions", "rollouts", "likelihoods", "scores", "screen"
START = {DIRECTIONS: 3.0, ROLLOUTS: 15.0, LIKELIHOODS: 0.0, SCORES: 1.0, SCREEN: 3.0}  # seconds before the first token
SHARE_OF_PEAK = {DIRECTIONS: 0.9, ROLLOUTS: 0.25, LIKELIHOODS: 0.5, SCREEN: 0.5}  # of the matrix product's speed; seen on CPUs
RESPONSES_A_SECOND = 240.0  # the rules on one core
CALIBRATION_SECONDS = 0.5
KEPT_SHARE = 0.5  # a sample replaces one of at most twice its size: a later machine state wins, a tiny run does not
MEASURED, ROUGH = "measured", "rough"


def keep(session: RunInputs, stage: str, tokens: int, seconds: float) -> None:
    """Remember that a stage took `seconds` for `tokens` on this machine."""
    known, key = _known(), _key(session)
    before = known.get(key, {}).get(stage, {"tokens": 0})
    if tokens <= 0 or tokens < KEPT_SHARE * before["tokens"]:
        return
    of_model = known.get(key, {}) | {stage: {"tokens": tokens, "seconds": round(seconds, 3)}}
    known[key] = of_model | {"values": session.checkpoint.num_values}
    write_store(cache_dir() / FILE, known)


def seconds_for(session: RunInputs, stage: str, tokens: int) -> tuple[float, str]:
    """Seconds that a stage will take, and whether that is measured or rough.

    Measured: from the same model and type on this hardware. Rough: from another model, by the number of weights, or from a
    product of matrices.
    """
    if stage == SCORES:
        return START[stage] + tokens / RESPONSES_A_SECOND, ROUGH
    known, key = _known(), _key(session)
    if stage in known.get(key, {}):
        return START[stage] + _at_pace(known[key][stage], tokens, 1.0), MEASURED
    machine = key.partition("/")[2]
    others = [entry for name, entry in known.items() if name.partition("/")[2] == machine and stage in entry]
    if others:
        nearest = min(others, key=lambda entry: abs(entry["values"] - session.checkpoint.num_values))
        return START[stage] + _at_pace(nearest[stage], tokens, session.checkpoint.num_values / nearest["values"]), ROUGH
    operations = 2 * session.checkpoint.num_values * tokens
    return START[stage] + operations / (SHARE_OF_PEAK[stage] * _peak(session)), ROUGH


def _at_pace(sample: Mapping[str, Any], tokens: int, scale: float) -> float:
    return float(sample["seconds"]) * tokens / float(sample["tokens"]) * scale


def _peak(session: RunInputs) -> float:
    """Operations a second of a product of matrices of this model's width, kept for the next time."""
    known, key = _known(), _key(session)
    machine = f"peak/{key.partition('/')[2]}"
    if machine not in known:
        known[machine] = {"operations": _measured_peak(session)}
        write_store(cache_dir() / FILE, known)
    return float(known[machine]["operations"])


def _measured_peak(session: RunInputs) -> float:
    import torch

    from engine.environment import has_gpu

    device = "cuda" if has_gpu() else "cpu"
    dtype = getattr(torch, session.config.model.dtype)
    left, right = (torch.randn(shape, device=device).to(dtype) for shape in ((64, 2048), (2048, 8192)))
    fastest, end = math.inf, time.monotonic() + CALIBRATION_SECONDS
    while time.monotonic() < end:
        started = time.monotonic()
        (left @ right).sum().item()
        fastest = min(fastest, time.monotonic() - started)
    return 2 * 64 * 2048 * 8192 / fastest


def _key(session: RunInputs) -> str:
    return f"{session.base_hash}/{session.config.model.dtype}/{hardware()}"


def _known() -> dict[str, Any]:
    """What is remembered; nothing where the file is missing or damaged, since all of it is measured again."""
    return read_store(cache_dir() / FILE)
