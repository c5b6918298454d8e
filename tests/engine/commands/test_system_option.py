"""--system: a text, or a file's."""

import json
from pathlib import Path

import pytest

from engine.commands.cli import text_or_file, variant_overrides
from engine.errors import EngineError
from engine.study.refusal_sets import load_sets
from extraction.conversations import Conversation
from tests.commands import ran
from tests.small_run import make_inputs

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"


def test_a_text_is_itself() -> None:
    assert variant_overrides(None, None, None, None, None, system="Be brief.") == {"data.system": "Be brief."}


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("\ufeffBe brief.\nAlways.\n", encoding="utf-8")
    assert text_or_file(str(tmp_path / "system.txt"), "--system") == "Be brief.\nAlways."


def test_a_long_text_is_no_files_name() -> None:
    assert text_or_file("word " * 2000, "--system") == "word " * 2000


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_bytes(b"caf\xe9")
    with pytest.raises(EngineError, match=r"--system .*system.txt is not UTF-8"):
        text_or_file(str(tmp_path / "system.txt"), "--system")


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny model of one's own, with prompts, as every command takes it."""
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    (folder / "template.jinja").write_text(TEMPLATE)
    (folder / "system.txt").write_text("Be brief.\n")
    named = {"--variant": "smollm2_135m_k1", "--model": folder / "model", "--template": folder / "template.jinja"}
    data = {"test_requests": "requests.txt", "test_answerable": "answerable.txt", "train_pairs": "pairs.csv"}
    keys = {f"data.{key}": folder / name for key, name in data.items()}
    settings = [f"--set={key}={value}" for key, value in keys.items()]
    numbers = [f"--set=data.{key}={count}" for key, count in (("num_pairs", 4), ("num_requests", 12), ("num_answerable", 4))]
    system = f"--system={folder / 'system.txt'}"
    return [*(f"{key}={value}" for key, value in named.items()), *settings, *numbers, system, "--set=sampling.max_tokens=16"]


@pytest.mark.parametrize(
    "command", ["ablate", "behave", "regrow", "transfer", "map", "study", "edit", "serve", "extract", "sweep", "rollout"]
)
def test_every_command_that_runs_prompts_takes_it(command: str) -> None:
    assert "--system" in ran(command, "--help").stdout


@pytest.mark.parametrize("command", ["ablate", "behave", "regrow", "serve"])
def test_its_text_is_the_runs(command: str, flags: list[str], tmp_path: Path) -> None:
    found = json.loads(ran(command, *flags, "--layers=1", "--dry-run", cwd=tmp_path).stdout)
    assert found.get("variants", [found])[0]["data"]["system"] == "Be brief."


@pytest.mark.parametrize("name", ["inability", "policy"])
def test_a_set_of_a_map_stands_under_it(name: str) -> None:
    """A policy's own system text stays: it is what the requests are declined by."""
    (plain,), (under,) = load_sets(None, [name]), load_sets(None, [name], "Be brief.")
    texts = [(one.declined, other.declined) for one, other in zip(plain.pairs["train"], under.pairs["train"], strict=True)]
    own = [text for text, _ in texts if isinstance(text, Conversation) and text.system]
    assert [other for text, other in texts] == [text if own else f"[system]\nBe brief.\n\n[user]\n{text}" for text, _ in texts]
