"""The public face: the ten lines of engine's docstring, run as they stand on a tiny Llama, beside what the commands give."""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from editing.checkpoint import open_checkpoint
from engine.environment import set_environment
from engine.errors import EngineError
from engine.paths import default_run_dir
from engine.rollout.directions import make_directions
from engine.rollout.variants import load_variant
from engine.runs.files import DIRECTIONS
from engine.runs.run_dir import RunDir
from engine.runs.schemas import ROLLOUT_SCHEMA
from engine.runs.session import Session
from engine.scoring.grader import RuleGrader
from extraction.directions import Directions
from judging.judgement import Judgement
from judging.offline import OfflineJudge
from tests.tiny import HIDDEN, save_tiny, save_tokenizer

pytestmark = pytest.mark.engine
Row = dict[str, Any]


def ten_lines() -> str:
    """The first indented block of the docstring."""
    block = re.search(r"\n\n((?: {4}.*\n|\n)+)", engine.__doc__ or "")
    assert block is not None
    return textwrap.dedent(block[1]).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and harmless pairs and requests, under the names that the docstring uses."""
    folder = tmp_path_factory.mktemp("notebook")
    save_tokenizer(save_tiny("llama served deep", folder / "model", dtype=torch.float32))
    pairs = [{"declined": f"Where is key {number}?", "answered": f"What is {number} + 1?"} for number in range(12)]
    files = {"pairs": pairs, "requests": [{"prompt": f"Is lamp {number} on?"} for number in range(10)]}
    files["answerable"] = [{"prompt": f"Name colour {number}."} for number in range(4)]
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass(frozen=True)
class Lines:
    """What the ten lines left: their names, and the session with its engine, which this test keeps running."""

    session: Session
    directions: Directions
    variant: Any
    rows: list[Row]
    scores: list[Row]
    folder: Path


@pytest.fixture(scope="module")
def lines(folder: Path) -> Iterator[Lines]:
    """The ten lines as they stand; only the cache is small, and the engine is stopped after the tests that use it."""
    set_environment()
    with pytest.MonkeyPatch.context() as patch, inside(folder):
        patch.setattr("engine.inference.arguments.GIB", 2**25)
        patch.setattr(Session, "__exit__", lambda *error: None)
        names: Row = {}
        exec(ten_lines(), names)
    yield Lines(*(names[name] for name in ("session", "directions", "variant", "rows", "scores")), folder=folder)
    names["session"].close()


def test_there_are_ten_lines() -> None:
    assert len([line for line in ten_lines().splitlines() if line.strip()]) == 10


def test_every_name_of_the_public_face_is_there() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'extrct'"):
        engine.extrct  # noqa: B018


def test_importing_the_engine_imports_nothing_heavy() -> None:
    code = "import sys, engine; print({'torch', 'vllm', 'pydantic', 'numpy', 'pyarrow', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_directions_are_those_of_the_commands(lines: Lines, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path, {})
    make_directions(lines.session, run_dir)
    own = load_variant(lines.session, run_dir.file(DIRECTIONS))
    assert own.hash == lines.variant.hash


def test_there_is_a_row_for_each_variant_and_request(lines: Lines) -> None:
    assert [(row["form"], row["kind"]) for row in lines.rows] == [
        (form, kind) for form in ("base", "in_place") for kind in ["declined"] * 10 + ["answerable"] * 4
    ]


def test_rows_have_the_columns_of_the_file(lines: Lines) -> None:
    assert {tuple(row) for row in map(sorted, lines.rows)} == {tuple(sorted(ROLLOUT_SCHEMA.names))}


def test_responses_are_those_of_the_replica_itself(lines: Lines) -> None:
    replica, requests = lines.session.replica(), lines.session.requests
    replica.swap(lines.variant)
    prompts = lines.session.render(requests, "test requests")
    found = sorted(replica.generate(prompts, lines.session.config.sampling), key=lambda generation: generation.index)
    assert [row["response_token_ids"] for row in lines.rows[len(requests) :]] == [one.token_ids for one in found]


def test_the_edit_changes_what_the_model_writes(lines: Lines) -> None:
    middle = len(lines.rows) // 2
    assert [row["response"] for row in lines.rows[:middle]] != [row["response"] for row in lines.rows[middle:]]


def test_every_response_is_scored_by_the_rules_that_read_likelihoods(lines: Lines) -> None:
    assert [score["judge"] for score in lines.scores] == ["offline"] * len(lines.rows)


def test_scores_are_those_of_the_rules_on_each_response(lines: Lines) -> None:
    scores = engine.score(lines.rows)
    items = [
        Judgement(row["compliance"], row["coherence"], row["declined"], row["reason"], outcome=row["outcome"]) for row in scores
    ]
    rules = OfflineJudge()
    assert items == [rules.score(row["prompt"], row["response"], finish_reason=row["finish_reason"]) for row in lines.rows]


def test_without_a_session_the_judge_is_the_one_that_reads_the_text_alone(lines: Lines) -> None:
    assert {score["judge"] for score in engine.score(lines.rows)} == {"offline-text"}


def test_rates_are_the_means_of_the_scores(lines: Lines) -> None:
    rates = engine.summarise(lines.rows, lines.scores)
    first = [score["coherence"] for score in lines.scores[:10]]
    assert rates[0].coherence.value == pytest.approx(sum(first) / 10)


def test_rates_are_by_variant_and_kind_in_order(lines: Lines) -> None:
    found = [(rates.variant, rates.kind, rates.n) for rates in engine.summarise(lines.rows, lines.scores)]
    assert found == [(name, kind, n) for name in ("base", "layer12") for kind, n in (("declined", 10), ("answerable", 4))]


def test_a_rate_lies_in_its_interval(lines: Lines) -> None:
    declined = engine.summarise(lines.rows, lines.scores)[0].declined
    assert declined.low <= declined.value <= declined.high


def test_the_checkpoint_that_is_written_is_the_variant(lines: Lines) -> None:
    record = json.loads((lines.folder / "edited" / "edit.json").read_text())
    assert (record["variant_hash"], record["layers"]) == (lines.variant.hash, [12])


def test_a_variants_own_layers_stand_on_its_card(lines: Lines, tmp_path: Path) -> None:
    other = engine.make_variant(lines.session, lines.directions, layers=[3, 5], k=1, alpha=0.5)
    record = engine.edit(lines.session, other, tmp_path / "other")
    assert (record["layers"], record["basis_shape"], record["alpha"]) == ([3, 5], [HIDDEN, 1], 0.5)


def test_only_the_writers_differ_from_the_base(lines: Lines) -> None:
    base, edited = (open_checkpoint(lines.folder / name) for name in ("model", "edited"))
    differing = {name for name in base.tensors if not torch.equal(base.read(name), edited.read(name))}
    assert differing == {tensor.name for tensor in lines.variant.plan.edited}


def test_own_prompts_are_answered_in_their_order(lines: Lines) -> None:
    prompts = ["Is it late?", "Name a fruit.", "Is it late?"]
    assert [row["prompt"] for row in engine.generate(lines.session, lines.variant, prompts)] == prompts[:2]


def test_rows_of_one_prompt_given_twice_are_refused(lines: Lines) -> None:
    with pytest.raises(EngineError, match=r"Two rows are variant .* response to declined/00000"):
        engine.score([*lines.rows, lines.rows[0]])


def test_a_judge_of_ones_own_grades_them(lines: Lines) -> None:
    class Short(RuleGrader):
        def grade(self, items: Any) -> list[Judgement]:
            return [Judgement(float(len(item.response) < 4), 1.0, None, "its length") for item in items]

    scores = engine.score(lines.rows, Short("short", "length", "counts characters", "1"))
    assert [score["compliance"] for score in scores] == [float(len(row["response"]) < 4) for row in lines.rows]


def test_a_layer_that_the_model_lacks_is_named(lines: Lines) -> None:
    with pytest.raises(EngineError, match="Layer 40 is out of range"):
        engine.make_variant(lines.session, lines.directions, layers=[40])


def test_more_dimensions_than_layers_are_refused_by_name(lines: Lines) -> None:
    with pytest.raises(EngineError, match=r"make_variant: .*k = 3 is larger than the number of layers given"):
        engine.make_variant(lines.session, lines.directions, k=3)


def test_the_base_is_no_edit_to_write(lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="The base is no edit"):
        engine.edit(lines.session, lines.session.base, tmp_path / "base")


def test_an_unknown_key_is_named(folder: Path) -> None:
    with pytest.raises(EngineError, match=r"config_for: unknown key 'sampling.max_token'. Did you mean 'max_tokens'\?"):
        engine.config_for(folder / "model", folder / "pairs.jsonl", overrides={"sampling.max_token": 3})


def test_a_variant_of_configs_is_read_by_its_name() -> None:
    assert engine.load_config("smollm2_135m_k1", {"edit.alpha": 0.5}).edit.alpha == 0.5


def test_nothing_is_written_where_the_lines_run(lines: Lines) -> None:
    kept = {"model", "pairs.jsonl", "requests.jsonl", "answerable.jsonl", "edited"}
    assert {path.name for path in lines.folder.iterdir()} == kept and not default_run_dir("model").exists()
