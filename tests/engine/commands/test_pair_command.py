"""bin/pair: twins from an endpoint, checked and in the pairs format; the declined side stays the user's own text."""

import json
from pathlib import Path
from typing import Any

import pytest

from extraction.prompts import load_pairs
from tests.engine.commands.judged import KEY_VARIABLE, judge_file, run
from tests.judging.chaos import Chaos

PROMPTS = [
    "What is the weather in Paris right now?",
    "What is the weather in Lima right now?",
    "Could you turn off the alarm on my phone?",
    "Who is standing behind me at this moment?",
]
TWINS = {
    "Paris": ["What is the weather in Paris usually like?"],
    "Lima": ["What is the weather in Lima right now?", "What is the weather in Lima like in May?"],  # a copy first, then a twin
    "alarm": ["Could you turn off the alarm on my watch?"],  # declined too, every time
    "standing": ["Yes."],
}


class TwinServer(Chaos):
    """Writes the twins above, and finds those about an alarm unanswerable."""

    def content(self, body: Any, question: str, fault: str | None) -> tuple[str, str, str | None]:
        if fault == "empty content":
            return "", "stop", None
        if body["messages"][0]["content"].startswith("You decide whether"):
            return json.dumps({"reason": "r", "answerable": "alarm" not in question}), "stop", None
        [name] = [name for name in TWINS if name in question]
        twin = TWINS[name][min("would not do" in question, len(TWINS[name]) - 1)]
        return json.dumps({"reason": "r", "twin": twin}), "stop", None


def test_twins_are_checked_asked_for_again_and_written_beside_the_users_own_text(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    with TwinServer(share=0.2, faults=("500", "empty content")) as server:
        judge = judge_file(tmp_path / "mine.toml", server)
        done = run(tmp_path, "pair", "prompts.json", "--judge", judge)
        asked = server.attempts.total()
        again = run(tmp_path, "pair", "prompts.json", "--judge", judge)
        (tmp_path / "prompts.pairs.json").rename(tmp_path / "first.json")
        (tmp_path / "prompts.pairs.rejected.json").rename(tmp_path / "why.json")
        third = run(tmp_path, "pair", "prompts.json", "--judge", judge, "--json")
        assert server.attempts.total() == asked, "answers are cached"
    assert done.returncode == 0, done.stderr
    assert "2 of 4 prompts have a twin: prompts.pairs.json" in done.stdout and "2 have none" in done.stdout
    pairs = json.loads((tmp_path / "first.json").read_text())
    assert pairs == [[PROMPTS[0], TWINS["Paris"][0]], [PROMPTS[1], TWINS["Lima"][1]]]
    assert [(pair.declined, pair.answered) for pair in load_pairs(tmp_path / "first.json")] == [tuple(pair) for pair in pairs]
    reasons = {row["index"]: row["reason"] for row in json.loads((tmp_path / "why.json").read_text())}
    assert "would decline it too" in reasons[2] and "its length is" in reasons[3]
    assert again.returncode == 2 and "prompts.pairs.json exists" in again.stderr
    assert (
        json.loads(third.stdout)["pairs"] == 2
        and (tmp_path / "prompts.pairs.json").read_text() == (tmp_path / "first.json").read_text()
    )


class Hearing(TwinServer):
    """Keeps the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def content(self, body: Any, question: str, fault: str | None) -> tuple[str, str, str | None]:
        self.heard.append(question)
        return super().content(body, question, fault)


TURNS = [
    {"role": "system", "content": "You sell maps."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hi!"},
]


@pytest.fixture(scope="module")
def of_a_chat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """bin/pair of one conversation: the file of pairs, and what the endpoint was asked."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "chats.jsonl").write_text(json.dumps({"messages": [*TURNS, {"role": "user", "content": PROMPTS[0]}]}))
    with Hearing() as server:
        done = run(folder, "pair", "chats.jsonl", "--judge", judge_file(folder / "mine.toml", server))
    assert done.returncode == 0, done.stderr
    return folder / "chats.pairs.json", server.heard


def test_a_conversations_twin_takes_the_last_turns_place(of_a_chat: tuple[Path, list[str]]) -> None:
    asked = [[*TURNS, {"role": "user", "content": text}] for text in (PROMPTS[0], TWINS["Paris"][0])]
    assert json.loads(of_a_chat[0].read_text()) == [asked]


def test_a_conversations_pair_is_read_again(of_a_chat: tuple[Path, list[str]]) -> None:
    (pair,) = load_pairs(of_a_chat[0])
    assert pair.answered.endswith(f"[user]\n{TWINS['Paris'][0]}")


def test_the_writer_and_the_judge_of_twins_see_what_was_said_before(of_a_chat: tuple[Path, list[str]]) -> None:
    assert [question for question in of_a_chat[1] if "[assistant]\nHi!" not in question] == []


def test_a_conversation_whose_answer_is_begun_is_refused(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": "It is"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": turns}))
    with TwinServer() as server:
        done = run(tmp_path, "pair", "chats.jsonl", "--judge", judge_file(tmp_path / "mine.toml", server))
    assert (done.returncode, "Prompt 1 is a conversation whose answer is begun" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prompts.json", "--judge", "offline"], "The judge 'offline' writes no text"),
        (["prompts.json", "--judge", "local"], "The judge 'local' writes no text"),
        (["none.json", "--judge", "mine.toml"], "Prompt file none.json does not exist"),
        (["prompts.json", "--judge", "mine.toml", "--out", "no/where.json"], "no is not a directory"),
        (["prompts.json", "--judge", "mine.toml", "--max-cost", "1"], "needs a price for the model"),
        (["prompts.json", "--judge", "deepseek"], "set the environment variable DEEPSEEK_API_KEY"),
    ],
)
def test_bad_input_is_named_before_anything_is_sent(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    with TwinServer() as server:
        judge_file(tmp_path / "mine.toml", server)
        done = run(tmp_path, "pair", *arguments, **{"DEEPSEEK_API_KEY": "", KEY_VARIABLE: "a-key-of-some-length"})
        assert done.returncode == 2 and message in done.stderr and server.attempts.total() == 0
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".toml"]
