"""scores.parquet of a run: one row per (response, judge, repeat), in the order of the rollouts, judge by judge.

Responses are read in batches, twice: once to have them judged, once to write what was judged. So memory does not grow with the
run, and what other judges said of it stays as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from engine.configs.judges import OFFLINE, TEXT
from engine.errors import EngineError
from engine.paths import replace_atomically
from engine.runs import parquet, parquet_reader
from engine.runs.files import LIKELIHOODS, ROLLOUTS, SCORES, VIEWS
from engine.runs.schemas import ROLLOUT_KEY, SCORE_SCHEMA, VIEW_NUMBERS, RolloutRow, Row, ScoreRow
from engine.scoring.grader import TEXT_ONLY, FittedGrader, Grader, OfflineGrader, reference_logprob
from judging.judgement import UNFINISHED, Item, Judgement
from judging.view import BaseView

COLUMNS = ["variant_hash", "prompt_id", "prompt", "response", "finish_reason", "trace", "unfinished"]
LATER = ("trace", "unfinished")  # columns that runs of earlier versions lack
TEXTS = ("prompt", "response")
LOGPROB_COLUMNS = ["variant_hash", "prompt_id", "form"]
# What tables of earlier versions lack, and what it is there.
ADDED_LATER = {"judge_model": "", "reply_model": None, "outcome": None, "harm": None}
SCORE_KEY = ("variant_hash", "prompt_id", "repeat")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class OfBase:
    """What a run has read of its responses with the base's weights, where it has: `logprobs`, nats a token, and `views`."""

    logprobs: Mapping[Key, float | None]
    views: Mapping[Key, BaseView | None]

    @staticmethod
    def read(folder: Path) -> "OfBase":
        """What is in a run directory."""
        logprobs = {parquet.key_of(row): row["mean_logprob"] for row in _rows_of(folder / LIKELIHOODS)}
        return OfBase(logprobs, {parquet.key_of(row): view_of(row) for row in _rows_of(folder / VIEWS)})


def view_of(row: Mapping[str, Any]) -> BaseView | None:
    """The view in a row of views.parquet; None of an empty response."""
    return None if row["given"] is None else BaseView(*(row[name] for name in VIEW_NUMBERS))


def _rows_of(path: Path) -> list[Row]:
    return parquet.read_rows(path) if path.is_file() else []


def score_run(folder: Path, grader: Grader, *, repeats: int = 1, trace: bool = False) -> None:
    """Judge the rollouts of a run directory; rows of the same judge are replaced, those of others kept.

    trace: show the judge what was thought before a response.
    """
    rollouts = folder / ROLLOUTS
    of_base = OfBase.read(folder)
    judges = as_judges(grader, rollouts, of_base)
    if grader.model:
        for rows in batches(rollouts):
            grader.ask([item for row, item in _items(rows, of_base, repeats, trace=trace) if not is_unfinished(row)])
        grader.drain()
    found = (lines for judge, knows in judges for lines in lines_of(judge, knows, folder, of_base, repeats, trace=trace))
    replace_scores(folder / SCORES, grader.name, found)


def replace_scores(scores: Path, judge: str, found: Iterable[list[ScoreRow]]) -> None:
    """Write scores.parquet: what other judges said stays as it is, then come the rows of `judge`, some at a time."""
    with replace_atomically(scores) as temporary, parquet.writer(temporary, SCORE_SCHEMA) as writer:
        for table in kept_scores(scores, set(names_of(judge))):
            writer.write_table(table)
        for lines in found:
            writer.write_table(pa.Table.from_pylist(lines, schema=SCORE_SCHEMA))


def lines_of(
    judge: Grader,
    knows: Callable[[RolloutRow], bool],
    folder: Path,
    of_base: OfBase,
    repeats: int,
    *,
    trace: bool = False,
) -> Iterator[list[ScoreRow]]:
    """A judge's rows of scores.parquet, some at a time. What it scored before stays where it now has no score."""
    before: dict[Key, ScoreRow] | None = None
    for rows in batches(folder / ROLLOUTS):
        times = repeats if judge.model else 1
        asked = [(row, item) for row, item in _items(rows, of_base, times, trace=trace) if knows(row)]
        found = judged(judge, asked)
        lines = [score_row(judge, row, item.repeat, one) for (row, item), one in zip(asked, found, strict=True)]
        if any(line["error"] is not None for line in lines):
            before = scored_before(folder / SCORES, judge) if before is None else before
            lines = [before.get(parquet.key_of(line, SCORE_KEY), line) if line["error"] is not None else line for line in lines]
        yield lines


def judged(judge: Grader, asked: Sequence[tuple[RolloutRow, Item]]) -> list[Judgement]:
    """Judgements in order: the judge's, and of a response that ended inside its trace that it is unfinished."""
    graded = iter(judge.grade([item for row, item in asked if not is_unfinished(row)]))
    return [UNFINISHED if is_unfinished(row) else next(graded) for row, _ in asked]


def is_unfinished(row: Mapping[str, Any]) -> bool:
    """Whether a response's tokens ended inside its trace: nobody is asked about it."""
    return bool(row.get("unfinished"))


def scored_before(scores: Path, judge: Grader) -> dict[Key, ScoreRow]:
    """Scores that this judge, with this model and rubric, gave in an earlier run: its cache may be gone."""
    if not scores.is_file():
        return {}
    wanted = [(name, "=", value) for name, value in _identity(judge).items()]
    rows = parquet_reader.read_table(scores, filters=wanted).to_pylist()
    return {parquet.key_of(row, SCORE_KEY): cast(ScoreRow, row) for row in rows if row["error"] is None}


def score_row(judge: Grader, row: Mapping[str, Any], repeat: int, judgement: Judgement) -> ScoreRow:
    """A row of scores.parquet."""
    identity = {"variant_hash": row["variant_hash"], "prompt_id": row["prompt_id"], "repeat": repeat}
    return cast(ScoreRow, identity | _identity(judge) | vars(judgement))


def _identity(judge: Grader) -> Row:
    return {"judge": judge.name, "judge_model": judge.model, "rubric_hash": judge.rubric_hash}


def names_of(judge: str) -> tuple[str, ...]:
    """The names that a judge's rows carry: rules have another where they see the text alone."""
    return judge, f"{judge}{TEXT}"


def as_judges(grader: Grader, rollouts: Path, of_base: OfBase) -> list[tuple[Grader, Callable[[RolloutRow], bool]]]:
    """The judges, each with the rows that are its: rules read what the base says where that is known, else the text alone."""
    fitted = isinstance(grader, FittedGrader)
    if grader.name != OFFLINE and not fitted:
        return [(grader, lambda row: True)]
    told: Mapping[Key, Any] = of_base.views if fitted else of_base.logprobs
    known: set[bool] = set()
    logprobs: list[float | None] = []
    for rows in batches(rollouts, LOGPROB_COLUMNS):
        logprobs += [of_base.logprobs.get(parquet.key_of(row)) for row in rows if row["form"] == "base"]
        known |= {parquet.key_of(row) in told for row in rows}
    reading: Grader = grader if fitted else OfflineGrader(reference_logprob(logprobs))
    plain: Grader = grader.by_text() if isinstance(grader, FittedGrader) else OfflineGrader(name=TEXT_ONLY)
    found = [(reading, lambda row: parquet.key_of(row) in told), (plain, lambda row: parquet.key_of(row) not in told)]
    return [judge for judge, reads in zip(found, (True, False), strict=True) if reads in known]


def batches(rollouts: Path, columns: Sequence[str] = COLUMNS) -> Iterator[list[RolloutRow]]:
    """The responses of a run, some at a time."""
    there = set(parquet_reader.column_names(rollouts))
    kept = [name for name in columns if name in there or name not in LATER]
    for batch in parquet_reader.read_batches(rollouts, kept, parquet.ROWS_A_BATCH):
        for name in TEXTS:
            if name in columns and batch[name].null_count:
                place = batch[name].is_null().to_pylist().index(True)
                key = ", ".join(f"{part} {batch[part][place]}" for part in ROLLOUT_KEY if part in columns)
                raise EngineError(
                    f"{rollouts} has a row without a {name} ({key}); expected a text, empty where nothing was said. "
                    "Remove the row, or make the run again."
                )
        yield cast(list[RolloutRow], batch.to_pylist())


def kept_scores(scores: Path, replaced: set[str]) -> Iterator[pa.Table]:
    """The rows of scores.parquet of judges other than `replaced`."""
    if not scores.is_file():
        return
    for batch in parquet_reader.read_batches(scores, None, parquet.ROWS_A_BATCH):
        table = _of_this_version(pa.Table.from_batches([batch]), scores)
        wanted = pc.invert(pc.is_in(table["judge"], pa.array(sorted(replaced))))
        yield table.filter(wanted)


def _of_this_version(table: pa.Table, scores: Path) -> pa.Table:
    """The rows with the columns that came later. Raises EngineError for a table that lacks others, or holds other types."""
    for name, value in ADDED_LATER.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * len(table), SCORE_SCHEMA.field(name).type))
    if absent := [name for name in SCORE_SCHEMA.names if name not in table.column_names]:
        raise EngineError(f"{scores} has no column '{absent[0]}', so it is not one of ours. Remove it and run again.")
    with parquet_reader.named(scores):
        return table.select(SCORE_SCHEMA.names).cast(SCORE_SCHEMA)


def item_of(
    row: RolloutRow,
    mean_logprob: float | None = None,
    repeat: int = 0,
    *,
    trace: bool = False,
    view: BaseView | None = None,
) -> Item:
    """A rollout as a judge is shown it; `trace` with what was thought before it."""
    thought = row.get("trace") if trace else None
    return Item(row["prompt"], row["response"], row["finish_reason"], mean_logprob, repeat, thought, view)


def _items(rows: Sequence[RolloutRow], of_base: OfBase, repeats: int, *, trace: bool) -> list[tuple[RolloutRow, Item]]:
    return [
        (row, item_of(row, of_base.logprobs.get(key), repeat, trace=trace, view=of_base.views.get(key)))
        for row in rows
        for key in [parquet.key_of(row)]
        for repeat in range(repeats)
    ]


def count_scored(scores: Path, judge: str) -> int:
    """Responses, repeats counted apart, that a judge has scored."""
    if not scores.is_file():
        return 0
    table = parquet_reader.read_table(scores, ["judge", "error"])
    return int(table.filter(pc.is_in(table["judge"], pa.array(names_of(judge))))["error"].null_count)
