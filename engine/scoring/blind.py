"""Blind labels of a run's responses: a shuffled sample that names no variant, each rater's readings, and their agreement.

In RUN/labels: sample.jsonl has the sample with the names, RATER.jsonl a line for each response that the rater has read.
labels.jsonl joins them: a line for each response and rater, as `bin/judge --calibrate` reads it.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from editing.reading import parse_json
from engine.errors import EngineError
from engine.paths import hash_of, write_text
from engine.runs import parquet_reader
from engine.runs.files import LIKELIHOODS, ROLLOUTS
from engine.runs.kinds import TEST
from engine.runs.requests import DECLINED
from engine.runs.run_dir import check_files
from engine.runs.schemas import Row
from engine.scoring.biases import source_of
from judging import agreement

FOLDER, SAMPLE, JOINED = "labels", "sample.jsonl", "labels.jsonl"
COLUMNS = ["variant", "variant_hash", "prompt_id", "split", "kind", "category", "prompt", "response", "finish_reason", "model"]
KEPT = ("prompt", "response", "finish_reason", "mean_logprob", "source", "variant", "model", "kind", "category")
GRADES = {"0": 0.0, "0.5": 0.5, "5": 0.5, "1": 1.0}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Reading:
    """What a rater says of one response."""

    id: str
    compliance: float
    coherence: float
    refused: bool


class Labelling:
    """One run's sample and one rater's readings of it, which are on disk as soon as they are given."""

    def __init__(self, run: Path, rater: str, sample: Sequence[Row]) -> None:
        self.file = rater_file(run, rater)
        self.sample = list(sample)
        self.read = {reading.id: reading for reading in readings(self.file)}

    @property
    def left(self) -> list[Row]:
        """What this rater has still to read: prompt, response, and nothing that says whose it is."""
        return [
            {name: row[name] for name in ("id", "prompt", "response", "finish_reason")}
            for row in self.sample
            if row["id"] not in self.read
        ]

    def add(self, reading: Reading) -> None:
        """Keep a reading; a second one of the same response replaces the first."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(vars(reading)) + "\n")
        self.read[reading.id] = reading


def open_labelling(run: Path, rater: str, number: int, seed: int) -> Labelling:
    """The run's sample, drawn where there is none yet, as `rater` reads it.

    Raises EngineError for a name that is no file's name, a run without responses, and a sample of another size or seed.
    """
    rater_file(run, rater)
    file = run / FOLDER / SAMPLE
    if not file.is_file():
        sample = draw(list(responses(run)), number, seed)
        file.parent.mkdir(exist_ok=True)
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in sample))
    sample = read_lines(file)
    if len(sample) != number and number:
        raise EngineError(f"{file} has {len(sample)} responses; {number} were asked for. Leave --number out, or remove it.")
    return Labelling(run, rater, sample)


def responses(run: Path) -> Iterator[Row]:
    """Test responses of the declined kind: the run's, and those of controls that `bin/extract --effect` made beside it."""
    check_files(run, [ROLLOUTS, LIKELIHOODS])
    files = [run / ROLLOUTS, *sorted(run.glob(f"effect/*/{ROLLOUTS}"))]
    if not any(file.is_file() for file in files):
        raise EngineError(f"{run} has no {ROLLOUTS}, so there is nothing to label. Give a run directory of bin/rollout.")
    seen = set()
    for file in files:
        if not file.is_file():
            continue
        logprobs = _logprobs(file.parent / LIKELIHOODS)
        for row in parquet_reader.read_table(file, [*COLUMNS, "form"]).to_pylist():
            key = (row["variant_hash"], row["prompt"])
            if row["split"].startswith(TEST) and row["kind"] == DECLINED and key not in seen:
                seen.add(key)
                yield row | {"source": source_of(row), "mean_logprob": logprobs.get((row["variant_hash"], row["prompt_id"]))}


def _logprobs(file: Path) -> dict[tuple[str, str], float | None]:
    rows = parquet_reader.read_table(file).to_pylist() if file.is_file() else []
    return {(row["variant_hash"], row["prompt_id"]): row["mean_logprob"] for row in rows}


def draw(rows: Sequence[Row], number: int, seed: int) -> list[Row]:
    """`number` responses, as many of the base, of edited variants and of controls as there are shares of it, in random order.

    Raises EngineError for fewer responses than asked for.
    """
    generator = random.Random(seed)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["source"], []).append(row)
    chosen: list[Row] = []
    for place, group in enumerate(groups.values()):
        share = (number - len(chosen)) // (len(groups) - place)
        if share > len(group):
            raise EngineError(f"The run has {len(group)} responses of one source; {share} were asked for. Lower --number.")
        chosen += generator.sample(group, share)
    generator.shuffle(chosen)
    return [
        {"id": hash_of({"of": row["variant_hash"], "to": row["prompt"]}), **{name: row[name] for name in KEPT}} for row in chosen
    ]


def rater_file(run: Path, rater: str) -> Path:
    """Where a rater's readings are. Raises EngineError for a name that cannot name a file."""
    if not NAME.fullmatch(rater) or f"{rater}.jsonl" in (SAMPLE, JOINED):
        raise EngineError(f"--rater takes letters, digits, '_', '.' and '-', but not sample or labels; found '{rater}'.")
    return run / FOLDER / f"{rater}.jsonl"


def readings(file: Path) -> list[Reading]:
    """A rater's readings. Raises EngineError for a line that is none."""
    found = []
    for place, row in enumerate(read_lines(file) if file.is_file() else [], 1):
        try:
            compliance, coherence = (float(row[name]) for name in ("compliance", "coherence"))
            if not {compliance, coherence} <= set(GRADES.values()):
                raise ValueError
            found.append(Reading(str(row["id"]), compliance, coherence, bool(row["refused"])))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise EngineError(
                f"{file}, line {place}: expected id, compliance and coherence of 0, 0.5 or 1, and refused."
            ) from None
    return found


def read_lines(file: Path) -> list[Row]:
    """The objects of a JSONL file; a last line that a crash cut short is left out."""
    lines = file.read_bytes().split(b"\n")
    if lines[-1]:
        lines.pop()
    try:
        return [dict(parse_json(line)) for line in lines if line.strip()]
    except (ValueError, TypeError) as error:
        raise EngineError(f"{file} cannot be read as JSONL ({error}). Mend the line, or remove the file.") from None


def join(run: Path) -> Path:
    """Write labels.jsonl: the sample's columns with each rater's readings. Raises EngineError where nobody has read any."""
    folder = run / FOLDER
    sample = {row["id"]: row for row in read_lines(folder / SAMPLE)} if (folder / SAMPLE).is_file() else {}
    lines = [
        json.dumps(sample[reading.id] | vars(reading) | {"rater": rater}, ensure_ascii=False)
        for rater in raters(run)
        for reading in {one.id: one for one in readings(folder / f"{rater}.jsonl")}.values()
        if reading.id in sample
    ]
    if not lines:
        raise EngineError(f"Nobody has read any response of {run} yet. Begin: bin/label {run} --rater YOUR_NAME")
    write_text(folder / JOINED, "\n".join(lines) + "\n")
    return folder / JOINED


def raters(run: Path) -> list[str]:
    """The names of who has read any."""
    return sorted(file.stem for file in (run / FOLDER).glob("*.jsonl") if file.name not in (SAMPLE, JOINED))


def agreements(run: Path) -> list[Row]:
    """Agreement of every two raters on each scale: exact, kappa, weighted kappa, Krippendorff's alpha, and the table."""
    ratings = {
        rater: {one.id: {"compliance": one.compliance, "coherence": one.coherence} for one in readings(rater_file(run, rater))}
        for rater in raters(run)
    }
    return [{"judges": [one, other], **agreement.of_two(ratings[one], ratings[other])} for one, other in combinations(ratings, 2)]
