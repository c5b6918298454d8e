"""bin/chat: what a line does, how two answers stand, and a real conversation with SmolLM2 through a pipe."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.configs.schema import SamplingConfig
from engine.display.chat_words import HELP, beside
from engine.runs.session import Session
from engine.runtime.requests import Asked
from engine.serving.chat import Chat, talk
from tests import small_run


@dataclass
class Echo:
    """Tells what it was asked: the number of tokens, and how strongly."""

    asked: list[tuple[list[int], float | None]] = field(default_factory=list)

    def answer(self, prompts: list[list[int]], sampling: SamplingConfig, asked: list[Asked | None]) -> list[str]:
        self.asked += [(prompt, None if one is None else one.alpha) for prompt, one in zip(prompts, asked, strict=True)]
        return [f"{len(prompt)} tokens" for prompt in prompts]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("inputs")
    small_run.make_inputs(folder)
    return Session(small_run.config_of(folder))


@pytest.fixture
def chat(session: Session) -> Chat:
    return Chat(session, Echo(), "k1", Asked("hash", 1.0))


def asked(chat: Chat) -> list[tuple[list[int], float | None]]:
    assert isinstance(chat.engine, Echo)
    return chat.engine.asked


def test_a_line_is_a_question_to_both(chat: Chat, session: Session) -> None:
    chat.say("What is a key?", 80)
    (one, base_alpha), (other, alpha) = asked(chat)
    assert one == other == session.renderer.render("What is a key?")
    assert (base_alpha, alpha) == (None, 1.0)


def test_each_goes_on_with_its_own_answers(chat: Chat) -> None:
    chat.turns = {}
    chat.say("What is a key?", 80)
    chat.turns["k1"][-1] = type(chat.turns["k1"][-1])("assistant", "Something else.")
    chat.say("And a lock?", 80)
    (_, _), (_, _), (base, _), (variant, _) = asked(chat)
    assert base != variant
    assert len(base) > len(asked(chat)[0][0])


def test_the_strength_changes_between_turns(chat: Chat) -> None:
    assert chat.say("/alpha 0.5", 80) == "alpha 0.5"
    chat.say("What?", 80)
    assert asked(chat)[1][1] == 0.5


def test_a_strength_of_nothing_is_the_base(chat: Chat) -> None:
    chat.say("/alpha 0", 80)
    chat.say("What?", 80)
    assert asked(chat)[1][1] is None


@pytest.mark.parametrize("text", ["much", "", "nan", "inf"])
def test_a_strength_that_is_no_number_changes_nothing(chat: Chat, text: str) -> None:
    assert str(chat.say(f"/alpha {text}", 80)).startswith("/alpha takes a number")
    assert chat.asked.alpha == 1.0


def test_a_new_conversation_forgets(chat: Chat) -> None:
    for line in ("What is a key?", "/new", "What is a key?"):
        chat.say(line, 80)
    assert asked(chat)[0] == asked(chat)[2]


def test_an_unknown_command_tells_the_known_ones(chat: Chat) -> None:
    assert chat.say("/nosuch", 80) == HELP


def test_quit_ends_it(chat: Chat) -> None:
    assert list(talk(chat, ["/new", "/quit", "/new"], 80)) == ["a new conversation"]


def test_two_answers_stand_side_by_side_within_the_width() -> None:
    shown = beside(["base", "k1"], ["one two three " * 10, "short"], 60).splitlines()
    assert max(map(len, shown)) <= 60
    assert shown[0].split(" | ")[1] == "k1"
    assert shown[2].endswith("| short")


def test_in_a_narrow_terminal_one_stands_above_the_other() -> None:
    assert beside(["base", "k1"], ["a", "b"], 40) == "base:\na\n\nk1:\nb\n"


def test_an_answer_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in beside(["base", "k1"], ["\x1b[2J", ""], 80)


@pytest.mark.slow
@pytest.mark.engine
def test_a_conversation_through_a_pipe(smollm2_dir: Path, tmp_path: Path) -> None:
    lines = "Could you turn off the alarm on my phone?\n/alpha 0\n/new\nCould you turn off the alarm on my phone?\n/quit\n"
    command = [sys.executable, "-m", "engine.commands.chat", "--variant=smollm2_135m_k1", "--set=data.num_pairs=32"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "100"}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*command, "--set=sampling.max_tokens=12"], input=lines, **options)
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0
    first, second = (part.splitlines() for part in done.stdout.split("> Could")[1:])
    assert first[3].split(" | ")[0].strip() != first[3].split(" | ")[1].strip()
    assert second[3].split(" | ")[0].strip() == second[3].split(" | ")[1].strip()
