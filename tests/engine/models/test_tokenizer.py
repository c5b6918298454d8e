"""A folder's tokenizer and template: where the template comes from, and what damaged files say."""

import json
from pathlib import Path

import pytest

from engine.configs.schema import ModelConfig
from engine.errors import EngineError
from engine.models.tokenizer import open_renderer, open_tokenizer, stop_tokens
from tests.tiny import TEMPLATE, save_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tokenizer(tmp_path / "model")


def rendered(folder: Path, **settings: str) -> str:
    renderer = open_renderer(folder, ModelConfig(path=str(folder), **settings))
    return str(renderer.tokenizer.decode(renderer.render("Hi")))


def test_the_folders_own_template_is_used(folder: Path) -> None:
    assert rendered(folder) == "<s>u Hi a "


def test_a_processors_template_alone_is_used(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE.replace("u ", "user ")}))
    assert rendered(folder) == "<s>user Hi a "


def test_a_processors_template_that_differs_is_refused(folder: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0]['content'] }} go"}))
    with pytest.raises(EngineError, match=r"chat_template.json and the tokenizer's own chat template differ"):
        rendered(folder)


def test_naming_one_settles_it(folder: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0]['content'] }} go"}))
    assert rendered(folder, chat_template="{{ messages[0]['content'] }} ok") == "Hi ok"


def test_a_damaged_processors_template_is_named(folder: Path) -> None:
    (folder / "chat_template.json").write_text("[1]")
    with pytest.raises(EngineError, match=r"chat_template.json has no readable chat_template"):
        rendered(folder)


def test_one_of_additional_templates_is_chosen_by_name(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "short.jinja").write_text("{{ messages[0]['content'] }} ?")
    assert rendered(folder, chat_template="short") == "Hi ?"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "1.0"}', "null"])
def test_a_damaged_tokenizer_is_named(folder: Path, text: str, quick: bool) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(EngineError, match=r"its tokenizer cannot be read"):
        open_tokenizer(folder, quick=quick)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no tokenizer \(none of tokenizer.json"):
        open_tokenizer(tmp_path)


def test_quick_and_whole_opening_render_alike(folder: Path) -> None:
    config = ModelConfig(path=str(folder))
    assert open_renderer(folder, config).render("Hi") == open_renderer(folder, config, quick=True).render("Hi")


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("generation_config.json", {"eos_token_id": [9, 7]}, [2, 7, 9]),
        ("generation_config.json", {"eos_token_id": 2}, [2]),
        ("config.json", {"eos_token_id": 5}, [2, 5]),
        ("config.json", {"text_config": {"eos_token_id": 6}}, [2, 6]),
        ("config.json", {"eos_token_id": None}, [2]),
    ],
)
def test_a_response_ends_at_the_tokenizers_token_and_the_configurations(
    folder: Path, file: str, content: dict[str, object], expected: list[int]
) -> None:
    """The tokenizer's own is 2."""
    (folder / file).write_text(json.dumps(content))
    assert stop_tokens(folder, open_tokenizer(folder)) == expected


def test_a_generation_configuration_wins_over_the_models(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert stop_tokens(folder, open_tokenizer(folder)) == [2, 7]
