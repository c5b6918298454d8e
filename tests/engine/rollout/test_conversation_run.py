"""A chat with a system prompt and three turns, through extraction, rollout, judge and report; no engine behind the answers."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.configs.load import changed
from engine.errors import EngineError
from engine.rollout.run import run
from engine.runs import parquet
from engine.runs.requests import Request
from engine.runs.session import Session
from extraction.conversations import Conversation
from extraction.errors import ExtractionError
from extraction.files import read_metadata
from tests.engine.report.made import unpacked
from tests.small_run import SmallReplica, config_of, make_inputs

SYSTEM = {"role": "system", "content": "You sell keys."}
TURNS = [SYSTEM, {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"
TRANSCRIPT = "[system]\nYou sell keys.\n\n[user]\nHello?\n\n[assistant]\nHello.\n\n[user]\nSee my key 3?"


class Listening(SmallReplica):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[list[int]] = []

    def generate(self, prompts: Sequence[Sequence[int]], *options: Any, **named: Any) -> Iterator[Any]:
        self.heard += [list(prompt) for prompt in prompts]
        return super().generate(prompts, *options, **named)

    def mean_logprobs(self, prompts: Sequence[Any], *options: Any, **named: Any) -> list[float | None]:
        self.heard += [list(prompt) for prompt in prompts]
        return super().mean_logprobs(prompts, *options, **named)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    make_inputs(folder)
    rows = [
        {
            "messages": [*TURNS, {"role": "user", "content": f"See my key {n}?"}],
            "kind": "keys",
            "language": "fr" if n > 3 else "en",
        }
        for n in range(6)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [[[*TURNS, {"role": "user", "content": text}] for text in (f"Call {n}.", f"What is {n}?")] for n in range(4)]
    (folder / "chat_pairs.json").write_text(json.dumps(pairs))
    return folder


def config_with(inputs: Path, **settings: Any) -> Any:
    chosen = {"model.chat_template": TEMPLATE, "data.num_requests": None, "data.num_answerable": 2, "data.num_pairs": None}
    chosen |= {"data.test_requests": str(inputs / "chats.jsonl"), "data.train_pairs": str(inputs / "chat_pairs.json")}
    return changed(config_of(inputs, given=False), chosen | settings, "the test")


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listening, Session]:
    out = tmp_path_factory.mktemp("finished") / "run"
    session, replica = Session(config_with(inputs, **{"directions.position": "last_instruction"})), Listening()
    session.use(replica)  # type: ignore[arg-type]
    run(session.config, out, session=session)
    return out, replica, session


def request(session: Session, number: int) -> Request:
    return next(one for one in session.requests if one.prompt_id == f"declined/{number:05d}")


def test_a_request_is_a_conversation_with_its_kind_and_language(finished: tuple[Path, Listening, Session]) -> None:
    found = request(finished[2], 3)
    assert (found.text, found.category, found.language) == (TRANSCRIPT, "keys", "en")


def test_the_engine_is_given_the_templates_own_text(finished: tuple[Path, Listening, Session]) -> None:
    decoded = {finished[2].renderer.tokenizer.decode(prompt) for prompt in finished[1].heard}
    assert "<system>You sell keys.<user>Hello?<assistant>Hello.<user>See my key 3?<go>" in decoded


def test_likelihoods_are_read_behind_the_same_tokens(finished: tuple[Path, Listening, Session]) -> None:
    ids = finished[2].renderer.render(request(finished[2], 3).text)
    assert finished[1].heard.count(ids) == 3  # base, variant, and the variant's response under the base


def test_directions_are_read_at_the_last_instruction(finished: tuple[Path, Listening, Session]) -> None:
    assert read_metadata(finished[0] / "directions.safetensors")["position"] == "last_instruction"


def test_rows_hold_the_transcript(finished: tuple[Path, Listening, Session]) -> None:
    assert TRANSCRIPT in {row["prompt"] for row in parquet.read_rows(finished[0] / "rollouts.parquet")}


def test_rows_hold_the_turns(finished: tuple[Path, Listening, Session]) -> None:
    row = next(row for row in parquet.read_rows(finished[0] / "rollouts.parquet") if row["prompt"] == TRANSCRIPT)
    assert json.loads(row["messages"]) == [*TURNS, {"role": "user", "content": "See my key 3?"}]


def test_a_plain_prompts_row_has_no_turns(finished: tuple[Path, Listening, Session]) -> None:
    rows = parquet.read_rows(finished[0] / "rollouts.parquet")
    assert {row["messages"] for row in rows if row["kind"] == "answerable"} == {None}


def test_every_response_is_judged(finished: tuple[Path, Listening, Session]) -> None:
    assert {row["error"] for row in parquet.read_rows(finished[0] / "scores.parquet")} == {None}


def test_the_report_shows_the_system_text(finished: tuple[Path, Listening, Session]) -> None:
    (data,) = unpacked(finished[0] / "report.html")
    assert any("You sell keys." in prompt["text"] for prompt in data["prompts"])


def test_a_runs_rates_stand_by_language(finished: tuple[Path, Listening, Session]) -> None:
    figures = json.loads((finished[0] / "summary.json").read_text())["figures"]
    counted = [[(part["language"], part["n"]) for part in figure["languages"] or []] for figure in figures]
    assert counted == [[("en", 4), ("fr", 2)], [], [("en", 4), ("fr", 2)], []]


def test_the_report_shows_the_rates_by_language(finished: tuple[Path, Listening, Session]) -> None:
    assert "By language" in (finished[0] / "report.html").read_text()


def test_a_runs_system_text_reaches_every_plain_prompt(inputs: Path) -> None:
    session = Session(config_with(inputs, **{"data.system": "Be brief.", "data.test_requests": str(inputs / "requests.txt")}))
    assert {text.system for text in (one.text for one in session.requests) if isinstance(text, Conversation)} == {"Be brief."}


def test_a_prompt_keeps_its_own_system_text_in_such_a_run(inputs: Path) -> None:
    session = Session(config_with(inputs, **{"data.system": "Be brief."}))
    assert "You sell keys." in request(session, 3).text


def test_a_run_without_a_system_text_is_the_run_that_it_was(inputs: Path) -> None:
    assert "system" not in Session(config_with(inputs)).identity["config"]["data"]


def test_another_system_text_is_another_run(inputs: Path) -> None:
    identities = [Session(config_with(inputs, **{"data.system": text})).identity["config"] for text in ("Be brief.", "Be long.")]
    assert identities[0] != identities[1]


def test_a_template_that_takes_no_system_text_is_told_of_by_row_before_a_model_loads(inputs: Path) -> None:
    template = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template += "{{ m['content'] }}.{% endfor %}"
    with pytest.raises(ExtractionError, match="declined training prompts, prompt 1: the chat template has no place for a system"):
        Session(config_with(inputs, **{"model.chat_template": template})).check_prompts()


def test_the_merge_stands_in_the_rows_template(inputs: Path) -> None:
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}.{% endfor %}"
    session = Session(config_with(inputs, **{"model.chat_template": template, "model.merge_system": True}))
    assert session.merges_system


def test_a_position_that_a_training_prompt_lacks_is_refused_before_a_model_loads(inputs: Path) -> None:
    with pytest.raises(ExtractionError, match="declined training prompts, prompt 1: it has no prefill"):
        Session(config_with(inputs, **{"directions.position": "prefill_end"})).check_prompts()


def test_greedy_samples_cannot_differ(inputs: Path) -> None:
    with pytest.raises(EngineError, match="samples above 1 takes a temperature above 0"):
        config_with(inputs, **{"sampling.samples": 3})
