"""A model that thinks first, from rollout to summary: rows, grades, positions along the trace; planted answers, no engine."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.configs.load import changed
from engine.configs.schema import RunConfig, SamplingConfig
from engine.errors import EngineError
from engine.inference.replica import Generation
from engine.rollout.directions import generated_streams
from engine.rollout.run import run
from engine.runs import parquet
from engine.runs.session import Session
from engine.study.behaviour import answer_of, trace_of
from engine.study.budget import bounds_of, make_budget
from engine.study.opening import open_study
from extraction.errors import ExtractionError
from extraction.thinking import Parts, Thought
from tests.forward import residual_stream
from tests.small_run import SmallReplica, config_of, make_inputs
from tests.tiny import BLOCKS, tiny_model

REASONING, ANSWER = "<t>,</t>", "I'm sorry, but I can't do that."


class Thinker(SmallReplica):
    """Thinks for as many tokens as the prompt's number, as far as it may, then declines; every fourth trace never ends."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **options: Any) -> Iterator[Generation]:
        for index, _ in enumerate(prompts):
            thought = "h" * (2 + index) if sampling.thinking_tokens is None else "h" * min(2 + index, sampling.thinking_tokens)
            text = f"<t>{thought}" if index % 4 == 3 and sampling.thinking_tokens is None else f"<t>{thought}</t>{ANSWER}"
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            yield Generation(index, text, ids, "length" if "</t>" not in text else "stop", -1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinking")
    make_inputs(folder)
    (folder / "many.json").write_text(json.dumps([[f"Call {number}.", f"What is {number}?"] for number in range(6)]))
    (folder / "others.json").write_text(json.dumps([[f"Ring {number}.", f"Who is {number}?"] for number in range(3)]))
    return folder


def config_with(folder: Path, *, given: bool = True, **settings: Any) -> RunConfig:
    return changed(config_of(folder, given=given), {"model.reasoning": REASONING, **settings}, "the test")


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("run") / "run"
    session = Session(config_with(folder))
    session.use(Thinker(session.renderer.tokenizer))  # type: ignore[arg-type]
    summary = run(session.config, out, session=session)
    found = {name: parquet.read_rows(out / f"{name}.parquet") for name in ("rollouts", "scores")}
    return found | {"figures": summary["figures"]}


def row_of(rows: dict[str, list[dict[str, Any]]], table: str, number: int) -> dict[str, Any]:
    return next(row for row in rows[table] if row["prompt_id"] == f"declined/{number:05d}")


def test_the_response_is_the_answer(rows: dict[str, Any]) -> None:
    assert row_of(rows, "rollouts", 0)["response"] == ANSWER


def test_the_trace_stands_beside_it(rows: dict[str, Any]) -> None:
    assert row_of(rows, "rollouts", 2)["trace"] == "hhhh"


def test_the_trace_has_its_count_of_tokens_with_its_markers(rows: dict[str, Any]) -> None:
    assert row_of(rows, "rollouts", 2)["num_trace_tokens"] == len("<t>hhhh</t>")


def test_all_tokens_are_kept(rows: dict[str, Any]) -> None:
    assert row_of(rows, "rollouts", 0)["num_output_tokens"] == len(f"<t>hh</t>{ANSWER}")


def test_judges_see_the_answer(rows: dict[str, Any]) -> None:
    assert row_of(rows, "scores", 0)["outcome"] == "declines"


def test_a_trace_that_never_ends_is_unfinished(rows: dict[str, Any]) -> None:
    assert row_of(rows, "scores", 3)["outcome"] == "unfinished"


def test_what_is_unfinished_has_no_grade(rows: dict[str, Any]) -> None:
    row = row_of(rows, "scores", 3)
    assert [row[name] for name in ("compliance", "coherence", "declined", "error")] == [None] * 4


def test_what_is_unfinished_is_no_zero_in_a_rate(rows: dict[str, Any]) -> None:
    base = next(row for row in rows["figures"] if row["form"] == "base" and row["kind"] == "declined")
    assert (base["declined"]["value"], base["declined"]["n"], base["n"]) == (1.0, 9, 12)


def test_the_unfinished_are_counted_among_the_outcomes(rows: dict[str, Any]) -> None:
    base = next(row for row in rows["figures"] if row["form"] == "base" and row["kind"] == "declined")
    assert base["outcomes"]["unfinished"] == 3


def test_kl_is_read_on_the_answer_behind_the_trace(rows: dict[str, Any]) -> None:
    row = row_of(rows, "rollouts", 2)
    assert [len(trace_of(row)), len(answer_of(row))] == [len("<t>hhhh</t>"), len(ANSWER)]


def test_a_row_of_a_model_that_does_not_think_is_all_answer() -> None:
    assert answer_of({"response_token_ids": [1, 2], "num_trace_tokens": None}) == [1, 2]


PROMPTS = [[1, 5, 9], [1, 7, 3, 8]]
SAID = [Thought([90, 11, 12, 13, 91, 20, 21], Parts(1, 4, 5)), Thought([90, 14, 91, 22], Parts(1, 2, 3))]


@pytest.mark.parametrize(
    ("name", "places"), [("think_end", (4, 2)), ("think_end:-1", (3, 1)), ("answer_start", (5, 3)), ("trace", None)]
)
def test_a_position_reads_the_forward_pass_of_prompt_and_response(name: str, places: tuple[int, int] | None) -> None:
    model = tiny_model("llama", torch.float32)
    found_LNH = generated_streams(model, PROMPTS, SAID, name, "a test", lambda done: None).double()
    for place, (prompt, said) in enumerate(zip(PROMPTS, SAID, strict=True)):
        stream_LTH = residual_stream(model, [*prompt, *said]).double()[:, len(prompt) :]
        begin, end = said.parts.begin, said.parts.end
        expected_LH = stream_LTH[:, begin:end].mean(dim=1) if places is None else stream_LTH[:, places[place]]
        assert torch.allclose(found_LNH[:, place], expected_LH, atol=1e-5)


def test_every_layer_is_read() -> None:
    model = tiny_model("llama", torch.float32)
    assert generated_streams(model, PROMPTS, SAID, "think_end:-1", "a test", lambda done: None).shape[:2] == (BLOCKS + 1, 2)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([5, 6], "say how a trace is marked"),
        (Thought([90, 5], Parts(1, 2, 2, unfinished=True)), "pairs, response 1 has a trace that has not ended"),
        (Thought([5, 6], Parts(None, 0, 0)), "pairs, response 1 has no trace"),
        (Thought([90, 5, 91], Parts(1, 2, 3)), "pairs, response 1 has no answer behind its trace"),
    ],
)
def test_a_response_without_the_position_is_named(said: Any, message: str) -> None:
    with pytest.raises(ExtractionError, match=message):
        generated_streams(tiny_model("llama", torch.float32), PROMPTS[:1], [said], "answer_start", "pairs", lambda done: None)


def test_a_bound_without_markers_is_refused(folder: Path) -> None:
    with pytest.raises(EngineError, match=r"thinking_tokens bounds a trace, and model\.reasoning does not say"):
        config_with(folder, **{"model.reasoning": None, "sampling.thinking_tokens": 8})


def test_a_position_along_a_trace_without_markers_is_refused(folder: Path) -> None:
    with pytest.raises(EngineError, match="position think_end:-1 is one of models that think first"):
        config_with(folder, **{"model.reasoning": None, "directions.position": "think_end:-1"})


def test_a_run_without_traces_is_the_run_that_it_was(folder: Path) -> None:
    assert "reasoning" not in Session(config_of(folder)).identity["config"]["model"]


def test_directions_are_read_at_the_end_of_the_trace(folder: Path) -> None:
    from engine.rollout.directions import extract_configured

    data = {"data.train_pairs": str(folder / "pairs.csv"), "directions.position": "think_end:-1"}
    session = Session(config_with(folder, given=False, **data))
    with pytest.raises(ExtractionError, match="directions, response 4 has a trace that has not ended"):
        session.use(Thinker(session.renderer.tokenizer))  # type: ignore[arg-type]
        extract_configured(session)


def test_the_budgets_curve_has_a_row_for_each_bound(folder: Path, tmp_path: Path) -> None:
    data = {"data.train_pairs": str(folder / "many.json"), "data.selection_pairs": str(folder / "others.json")}
    study = open_study(config_with(folder, given=False, **data, **{"data.num_pairs": None}), tmp_path / "run")
    study.session.use(Thinker(study.session.renderer.tokenizer))  # type: ignore[arg-type]
    with study.run_dir.locked():
        found = make_budget(study, tokens="0,4", num_requests=8)
    lengths = [(row["variant"], row["tokens"], row["trace_tokens"]["value"]) for row in found["rows"]]
    markers = len("<t></t>")
    assert lengths[:2] == [("base", 0, markers), ("base", 4, markers + sum(min(2 + n, 4) for n in range(8)) / 8)]


@pytest.mark.parametrize("tokens", ["", "many", "1.5", "-3"])
def test_bounds_that_are_no_numbers_are_refused(tokens: str) -> None:
    with pytest.raises(EngineError, match="takes whole numbers with commas"):
        bounds_of(tokens)
