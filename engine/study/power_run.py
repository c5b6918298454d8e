"""What a finished run says about power: its base's rate, how alike its prompts are, and how alike base and variant answer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import EngineError
from engine.runs import parquet_reader
from engine.runs.files import ROLLOUTS, SCORES
from engine.runs.requests import DECLINED
from engine.runs.run_dir import check_files
from engine.runs.schemas import Row
from engine.scoring.summary import mean_of_repeats, read_scores
from extraction.kinds import Kinds
from judging.kinds import icc

BASE = "base"
LEAST = 10  # prompts with an answer of both


@dataclass(frozen=True)
class RunSetting:
    """Of the requests of the declined kind, by the run's first judge. `rows` is the mean number of prompts a kind."""

    base: float
    difference: float
    icc: float
    correlation: float
    kinds: int
    rows: float
    variant: str
    judge: str


def run_setting(folder: Path, figure: str, variant: str | None) -> RunSetting:
    """The setting of a run directory; the ICC is the larger of base's and variant's.

    Raises EngineError for a folder without scored responses, for an unknown variant, and for too few prompts.
    """
    check_files(folder, [ROLLOUTS, SCORES])
    if not all((folder / name).is_file() for name in (ROLLOUTS, SCORES)):
        raise EngineError(f"{folder} has no scored responses; expected a folder that bin/rollout made. Or give --base and --icc.")
    judge, scores = next(iter(read_scores(folder / SCORES).items()))
    columns = ["variant", "variant_hash", "prompt_id", "kind", "category"]
    rows = [row for row in parquet_reader.read_table(folder / ROLLOUTS, columns).to_pylist() if row["kind"] == DECLINED]
    hashes = {row["variant"]: row["variant_hash"] for row in rows}
    name = variant or next((name for name in hashes if name != BASE), None)
    if name is None or name not in hashes or BASE not in hashes:
        raise EngineError(f"{folder} holds no {variant or 'edited variant beside the base'}; found {', '.join(hashes)}.")
    outcomes = [_outcomes(scores, hashes[one], figure) for one in (BASE, name)]
    kinds = {row["prompt_id"]: row["category"] or "" for row in rows if row["variant"] == BASE}
    shared = [key for key in kinds if all(key in found for found in outcomes)]
    if len(shared) < LEAST:
        raise EngineError(f"{folder} has {len(shared)} requests that both were scored on; expected {LEAST} or more.")
    base_N, edited_N = (np.array([found[key] for key in shared]) for found in outcomes)
    names = [kinds[key] for key in shared]
    count = Kinds.of(names, len(names)).count
    alike = max(icc(outcome_N.tolist(), names) or 0.0 for outcome_N in (base_N, edited_N))
    difference = float(edited_N.mean() - base_N.mean())
    return RunSetting(
        float(base_N.mean()), difference, alike, _correlation(base_N, edited_N), count, len(shared) / count, name, judge
    )


def _outcomes(scores: pa.Table, digest: str, figure: str) -> dict[str, float]:
    graded = mean_of_repeats(scores.filter(pc.equal(scores["variant_hash"].cast(pa.string()), digest))).to_pylist()
    found = {row["prompt_id"]: _outcome(row, figure) for row in graded}
    return {key: value for key, value in found.items() if value is not None}


def _outcome(row: Row, figure: str) -> float | None:
    grade = row["declined" if figure == "declined" else "compliance"]
    return None if grade is None else float(grade) if figure == "declined" else float(grade == 1)


def _correlation(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Between both models' outcomes on the same prompts, 0 where either is always the same, and no less than 0."""
    if first_N.std() == 0 or second_N.std() == 0:
        return 0.0
    return min(max(float(np.corrcoef(first_N, second_N)[0, 1]), 0.0), 0.99)
