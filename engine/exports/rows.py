"""A run's responses with every judge's grades of them, as the exports write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.runs import parquet
from engine.runs.files import MANIFEST, ROLLOUTS, SCORES
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import check_files
from engine.runs.schemas import Row

GRADES = ("compliance", "coherence", "declined", "harm")
KEY = ("variant_hash", "prompt_id")


@dataclass(frozen=True)
class RunRows:
    """A run's name, manifest, responses in their order, and the scores of each (variant hash, prompt id), in their order."""

    name: str
    manifest: dict[str, Any]
    rollouts: list[Row]
    scores: dict[tuple[str, str], list[Row]]

    @property
    def variants(self) -> list[str]:
        """The variants' names, in their order."""
        return list(dict.fromkeys(row["variant"] for row in self.rollouts))

    def of(self, row: Row) -> list[Row]:
        """A response's scores."""
        return self.scores.get((row["variant_hash"], row["prompt_id"]), [])


def read_run_rows(path: Path) -> RunRows:
    """The rows of a run directory. Raises EngineError where it is none, has no responses, or a file is damaged."""
    if not (path / MANIFEST).is_file():
        raise EngineError(f"{path} is not a run directory: it has no {MANIFEST}. Give one that bin/rollout or bin/compare made.")
    manifest = read_manifest(path)
    if not (path / ROLLOUTS).is_file():
        raise EngineError(f"{path} has no {ROLLOUTS} to export. Run the command that began it again: it continues.")
    check_files(path, [ROLLOUTS, SCORES])
    scores: dict[tuple[str, str], list[Row]] = {}
    for score in parquet.read_rows(path / SCORES) if (path / SCORES).is_file() else []:
        scores.setdefault((score["variant_hash"], score["prompt_id"]), []).append(score)
    return RunRows(path.resolve().name, manifest, parquet.read_rows(path / ROLLOUTS), scores)


def flat(run: RunRows) -> list[Row]:
    """A row a response and score, of all columns; a response that nobody scored has one row, without grades."""
    return [{**row, **_graded(score)} for row in run.rollouts for score in run.of(row) or [{}]]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column, in the order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _graded(score: Row) -> Row:
    return {name: value for name, value in score.items() if name not in KEY}
