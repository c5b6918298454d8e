"""What `from engine import ...` gives: the steps of a run as functions, for notebooks and scripts.

Rows are dicts with the columns of rollouts.parquet and scores.parquet: `pandas.DataFrame(rows)` makes a table of them. Nothing
is written but what `edit` is asked for, and the caches of the machine. `bin/rollout` does the same into a run directory, and
continues where it was stopped.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.commands.cli import existing_or_embedded
from engine.configs.load import changed, load_without_file
from engine.configs.load import load_config as load_config  # a part of the face
from engine.configs.schema import JudgeConfig, RunConfig
from engine.display.progress import say
from engine.environment import has_gpu, set_environment
from engine.errors import EngineError
from engine.paths import hash_of, user_path
from engine.rollout.directions import check_given_directions, extract_configured
from engine.rollout.stages import answer, read_likelihoods, read_views
from engine.rollout.variants import variant_of
from engine.runs import parquet
from engine.runs.files import LIKELIHOODS, ROLLOUTS, SCORES, VIEWS
from engine.runs.machine import check_machine
from engine.runs.requests import Request
from engine.runs.schemas import LIKELIHOOD_SCHEMA, ROLLOUT_SCHEMA, SCORE_SCHEMA, VIEW_SCHEMA, RolloutRow, Row, ScoreRow
from engine.runs.session import Session
from engine.scoring.grader import FittedGrader, Grader
from engine.scoring.run_judge import RunJudge
from engine.scoring.scores import score_run
from engine.scoring.summary import figures_by, read_rollouts, read_scores
from judging.statistics import Estimate

if TYPE_CHECKING:
    from engine.models.variant import Variant
    from extraction.directions import Directions

OWN = "own"  # the kind and split of prompts that are not the configuration's


@dataclass(frozen=True)
class Rates:
    """One judge's figures of one variant on one kind of request.

    `condition` is the label of how requests were asked, "" without --vary. `n` responses were given, `missing` of them have no
    score, `empty` and `truncated` stay in `n`. `n_declined` is the responses that the judge said declined or not. An Estimate
    has a value and the ends of its 95 % interval, with the kind as the unit.

    `outcomes` counts what became of the requests; None where the judge does not say. `kinds` is how many kinds of prompt there
    are. `icc` says how far prompts of one kind resemble each other, `effective_n` how many independent prompts they are worth.
    `samples` has the product's variance within prompts and between them. `bounds` has the means with the missing scores at 0 and
    at 1. `against_base` has the differences from the base on the same prompts, with their p; None for the base. `harm` is by a
    classifier of that alone. `languages` has the rates of each language, where prompts name more than one.
    """

    judge: str
    variant: str
    variant_hash: str
    form: str
    split: str
    kind: str
    condition: str
    n: int
    missing: int
    n_declined: int
    empty: int
    truncated: int
    outcomes: dict[str, int] | None
    kinds: int | None
    icc: dict[str, float | None]
    effective_n: dict[str, float | None]
    samples: Row | None
    bounds: dict[str, list[float]] | None
    against_base: Row | None
    declined: Estimate
    complied: Estimate
    compliance: Estimate
    coherence: Estimate
    product: Estimate
    product_of_means: Estimate
    harm: Estimate | None = None
    languages: list[Row] | None = None


def config_for(
    model: str | Path,
    pairs: str | Path,
    *,
    layers: Sequence[int] | None = None,
    requests: str | Path | None = None,
    answerable: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """A validated configuration of a model that needs no file in configs/.

    model: a folder, a Hugging Face repository, or embedded:smollm2-135m-instruct. pairs: JSON, JSONL, CSV, TSV or Parquet of
    declined and answered requests. layers: in resid_pre numbering; None where `make_variant` will name them. requests,
    answerable: test requests of both kinds; None takes the embedded ones. overrides: other keys, such as
    {"sampling.max_tokens": 128}, or {"data.pair_columns": ["harmful", "safe"]}.
    Raises EngineError for a key or a value that is not known.
    """
    files = {"data.train_pairs": pairs, "data.test_requests": requests, "data.test_answerable": answerable}
    chosen: dict[str, Any] = {"model.path": existing_or_embedded(str(model))}
    chosen |= {key: existing_or_embedded(str(file)) for key, file in files.items() if file is not None}
    chosen |= {} if layers is None else {"directions.layers": list(layers)}
    return load_without_file(chosen | dict(overrides or {}), "config_for")


def open_session(config: RunConfig) -> Session:
    """Checkpoint, tokenizer and prompts of a configuration, checked; its one engine starts when something is generated.

    A context manager that stops the engine; in a notebook's cells, `session.close()` does. On a GPU the engine is a process of
    its own: a script that is not a notebook keeps its calls under `if __name__ == "__main__":`.
    Raises EngineError, EditError or ExtractionError for what a model or a prompt lacks.
    """
    set_environment()  # before anything imports torch
    session = Session(config)
    if config.directions.layers != "sweep":
        session.layers()
    check_given_directions(session)
    check_machine(session)
    session.check_prompts()
    return session


def extract(session: Session) -> "Directions":
    """Every layer's direction, (L+1, H) float64, from the session's training pairs, or those of its `directions.file`.

    On a GPU a running engine is stopped first: the model needs its memory. `generate` starts it again.
    """
    if (given := session.config.directions.file) is not None:
        from extraction.files import load_directions

        return load_directions(user_path(given))
    if has_gpu():
        session.close()
    return extract_configured(session)


def make_variant(
    session: Session,
    directions: "Directions",
    *,
    name: str | None = None,
    layers: Sequence[int] | None = None,
    k: int | None = None,
    alpha: float | None = None,
) -> "Variant":
    """An edit of the session's model, known by its hash; nothing is written or loaded yet.

    What is None is the configuration's. k: dimensions of the subspace of the layers' directions. alpha: the share removed.
    Raises EngineError for a layer that the model lacks, and ExtractionError for one that has no direction.
    """
    given = {"variant": name, "directions.layers": layers and list(layers), "directions.k": k, "edit.alpha": alpha}
    chosen = {key: value for key, value in given.items() if value is not None}
    return variant_of(session, directions, changed(session.config, chosen, "make_variant"))


def edit(session: Session, variant: "Variant", out: str | Path) -> Row:
    """The variant as a checkpoint folder that transformers and vLLM open, with its card; returns what its edit.json holds.

    Raises EditError for a folder that is there already and holds anything else.
    """
    from engine.checkpoints.export import check_export, export

    _check_edited(variant)
    check_export(session, Path(out))
    return export(session, variant, Path(out))


def generate(session: Session, variant: "Variant", prompts: Sequence[str] | None = None) -> list[RolloutRow]:
    """The variant's responses, a row each with the columns of rollouts.parquet, in the order of the prompts.

    variant: `session.base`, or one of `make_variant`, which the engine takes up by hot swap. prompts: None takes the
    configuration's test requests. Raises EngineError for an edit that a running engine cannot take up.
    """
    requests = session.requests if prompts is None else [_own(text) for text in dict.fromkeys(prompts)]
    session.check_swappable()
    rows = {row["prompt_id"]: row for row in answer(session, variant, requests, logprobs=variant.is_base)}
    return [rows[request.prompt_id] for request in requests]


def score(
    rows: Sequence[RolloutRow],
    judge: str | Grader = "offline",
    *,
    session: Session | None = None,
    repeats: int = 1,
    max_cost: float | None = None,
) -> list[ScoreRow]:
    """Each response's compliance and coherence, a row each with the columns of scores.parquet; what failed has an `error`.

    judge: offline, a name in configs/judges/, the path of a TOML, or a Grader of your own. session: lets the offline and
    the fitted judge read what the base says of each response, as bin/rollout does; without it the text alone is graded (judge
    offline-text, fitted-text).
    Raises EngineError for two rows of one variant and prompt, JudgeError for a judge that cannot be asked.
    """
    _check_unique(rows)
    with tempfile.TemporaryDirectory(prefix="refusal-score-") as name, _opened(judge, len(rows), repeats, max_cost) as grader:
        folder = Path(name)
        parquet.write_table(folder / ROLLOUTS, rows, ROLLOUT_SCHEMA)
        if session is not None and not grader.model:
            parquet.write_table(folder / LIKELIHOODS, read_likelihoods(session, rows), LIKELIHOOD_SCHEMA)
        if session is not None and isinstance(grader, FittedGrader):
            parquet.write_table(folder / VIEWS, read_views(session, rows), VIEW_SCHEMA)
        score_run(folder, grader, repeats=repeats)
        if grader.stopped is not None:
            say(f"judge {grader.name} stopped: {grader.stopped}")
        return cast(list[ScoreRow], parquet.read_rows(folder / SCORES))


def summarise(rows: Sequence[RolloutRow], scores: Sequence[ScoreRow]) -> list[Rates]:
    """Rates of each judge, variant and kind of request, with 95 % intervals: what bin/rollout prints."""
    if not rows or not scores:
        return []
    with tempfile.TemporaryDirectory(prefix="refusal-summary-") as name:
        folder = Path(name)
        parquet.write_table(folder / ROLLOUTS, rows, ROLLOUT_SCHEMA)
        parquet.write_table(folder / SCORES, scores, SCORE_SCHEMA)
        rollouts = read_rollouts(folder / ROLLOUTS)
        found = read_scores(folder / SCORES).items()
        return [_rates(figure) for judge, graded in found for figure in figures_by(rollouts, graded, judge=judge)]


def _rates(figure: Row) -> Rates:
    values: Row = {
        name: Estimate(**value) if isinstance(value, dict) and "method" in value else value for name, value in figure.items()
    }
    return Rates(**values)


def _own(text: str) -> Request:
    return Request(f"{OWN}/{hash_of({'prompt': text})}", OWN, OWN, "", text)


def _check_edited(variant: "Variant") -> None:
    if variant.edit is None:
        raise EngineError("The base is no edit: it is on the disk already. Give a variant of make_variant.")


def _check_unique(rows: Sequence[RolloutRow]) -> None:
    keys = [parquet.key_of(row) for row in rows]
    if len(set(keys)) < len(keys):
        variant, prompt_id = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise EngineError(f"Two rows are variant {variant}'s response to {prompt_id}. Leave one of them out.")


@contextlib.contextmanager
def _opened(judge: str | Grader, expected: int, repeats: int, max_cost: float | None) -> Iterator[Grader]:
    """The judge by its name, checked, and closed in the end; a Grader is its maker's to close."""
    if not isinstance(judge, str):
        yield judge
        return
    config = JudgeConfig(name=judge, repeat=repeats, max_cost=max_cost)
    with contextlib.closing(RunJudge(config, expected)) as named:
        named.check()
        yield named.grader
