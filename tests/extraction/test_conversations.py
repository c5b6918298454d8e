"""Conversations: what a file's row may hold, what becomes of it, and what is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from extraction.conversations import Conversation, Turn, from_row, to_json, with_system
from extraction.errors import ExtractionError
from extraction.prompts import Pair, Prompt, load_pairs, load_prompts

SYSTEM = {"role": "system", "content": "Answer in French."}
ASKED = {"role": "user", "content": "What is a key?"}
SAID = {"role": "assistant", "content": "It opens a door."}
MORE = {"role": "user", "content": "Which door?"}
TRANSCRIPT = "[system]\nAnswer in French.\n\n[user]\nWhat is a key?"


def read(folder: Path, *rows: Any) -> list[Prompt]:
    (folder / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return load_prompts(folder / "p.jsonl")


def turns(prompt: Prompt) -> list[dict[str, str]]:
    assert isinstance(prompt.text, Conversation)
    return prompt.text.messages


def test_a_row_holds_the_turns_of_a_conversation(tmp_path: Path) -> None:
    assert turns(read(tmp_path, {"messages": [SYSTEM, ASKED, SAID, MORE]})[0]) == [SYSTEM, ASKED, SAID, MORE]


def test_a_row_holds_a_system_text_beside_its_prompt(tmp_path: Path) -> None:
    assert turns(read(tmp_path, {"prompt": "What is a key?", "system": "Answer in French."})[0]) == [SYSTEM, ASKED]


def test_as_a_string_it_is_its_transcript(tmp_path: Path) -> None:
    assert read(tmp_path, {"messages": [SYSTEM, ASKED]})[0].text == TRANSCRIPT


def test_one_turn_of_the_users_is_a_plain_string(tmp_path: Path) -> None:
    assert type(read(tmp_path, {"messages": [ASKED]})[0].text) is str


def test_kind_and_language_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, {"prompt": "Oui?", "kind": "keys", "language": "fr"}) == [Prompt("Oui?", "keys", "fr")]


def test_kind_and_category_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="line 1: category and kind both name the prompt's kind, and differ"):
        read(tmp_path, {"prompt": "Oui?", "kind": "keys", "category": "doors"})


def test_a_cell_of_text_may_hold_messages(tmp_path: Path) -> None:
    cell = json.dumps([SYSTEM, ASKED]).replace('"', '""')
    (tmp_path / "p.csv").write_text(f'messages\n"{cell}"\n')
    assert turns(load_prompts(tmp_path / "p.csv")[0]) == [SYSTEM, ASKED]


def test_both_sides_of_a_pair_take_its_system_text(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("declined,answered,system\nWhat is a key?,Which door?,Answer in French.\n")
    sides = [
        Conversation([Turn("system", "Answer in French."), Turn("user", text)]) for text in ("What is a key?", "Which door?")
    ]
    assert load_pairs(tmp_path / "p.csv") == [Pair(*sides)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": [ASKED, {"role": "tool", "content": "x"}]},
            "ends with a turn of 'tool'; expected the user's, or an assist",
        ),
        ({"messages": [ASKED, SAID, {"role": "user", "content": " "}]}, "messages: turn 3 (user) is empty"),
        ({"messages": [ASKED, SYSTEM, MORE]}, "turn 2 is a system prompt; expected it first"),
        ({"messages": [SYSTEM, SAID]}, "no turn is the user's"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": "<think>Hm"}, MORE]},
            "turn 2 begins a trace (<think>) that no </thi",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": "[THINK]Hm"}, MORE]},
            "turn 2 begins a trace ([THINK]) that no [/THINK]",
        ),
        ({"messages": [{**ASKED, "tool_calls": [1]}]}, "turn 1 has 'tool_calls'; only a role and a content are read"),
        ({"messages": [SYSTEM, ASKED], "system": "Be brief."}, "the system prompt stands in a column and in the messages"),
    ],
)
def test_what_is_no_conversation_is_refused_by_row(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        read(tmp_path, {"prompt": "fine"}, row)
    assert message in str(caught.value)


def test_the_refusal_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"^p.jsonl, line 2: messages: turn 1"):
        read(tmp_path, {"messages": [ASKED]}, {"messages": [{"role": "user", "content": ""}]})


def test_a_trace_that_the_last_turn_begins_may_be_gone_on_with(tmp_path: Path) -> None:
    begun = {"role": "assistant", "content": "<think>Hm"}
    assert turns(read(tmp_path, {"messages": [ASKED, begun]})[0]) == [ASKED, begun]


def test_a_prompt_keeps_its_own_system_text() -> None:
    own = with_system("What is a key?", "Answer in French.")
    assert with_system(own, "Be brief.") is own


def test_a_table_gives_back_the_conversation() -> None:
    chat = with_system("What is a key?", "Answer in French.")
    assert from_row({"prompt": str(chat), "messages": to_json(chat)}).turns == chat.turns  # type: ignore[attr-defined]


def test_a_table_gives_back_a_plain_prompt() -> None:
    assert from_row({"prompt": "Hi", "messages": to_json("Hi")}) == "Hi"


def test_a_pickle_keeps_the_turns() -> None:
    chat = with_system("What is a key?", "Answer in French.")
    assert pickle.loads(pickle.dumps(chat)).turns == chat.turns  # type: ignore[attr-defined]
