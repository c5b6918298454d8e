"""A run's inputs, of a tiny checkpoint: what is checked before a model loads, and what its identity is made of."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.configs.load import load_config
from engine.errors import EngineError
from engine.runs.identity import without_spelling
from engine.runs.session import Session
from tests.tiny import save_tokenizer


@pytest.fixture(scope="module")
def model(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a tokenizer of its size."""
    folder = tmp_path_factory.mktemp("session") / "model"
    shutil.copytree(llama_dir, folder)
    return save_tokenizer(folder)


def session_of(model: Path, **settings: Any) -> Session:
    """Of a model whose window is 64 tokens."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    given = {"model.path": str(model), "directions.layers": [2], "sampling.max_tokens": 8, **named}
    return Session(load_config("smollm2_135m_k1", given))


def test_requests_have_ids_by_kind_and_place(model: Path) -> None:
    session = session_of(model, data__num_requests=2, data__num_answerable=1)
    assert [request.prompt_id for request in session.requests] == ["declined/00000", "declined/00001", "answerable/00000"]


def test_a_layer_that_the_model_lacks_is_refused(model: Path) -> None:
    with pytest.raises(EngineError, match=r"Layer 9 is out of range: .* has layers 0 to 3"):
        session_of(model, directions__layers=[9]).layers()


def test_a_prompt_that_the_window_cannot_hold_is_refused(model: Path) -> None:
    with pytest.raises(EngineError, match="leaves no room for a prompt"):
        session_of(model, sampling__max_tokens=64).check_prompts()


def test_embeddings_are_swapped_in_a_running_engine(model: Path) -> None:
    session_of(model, edit__embeddings=True).check_swappable()


def test_a_message_is_rendered_once(model: Path) -> None:
    session = session_of(model)
    assert session.render_texts(["Where is it?"], "x")[0] is session.render_texts(["Where is it?"], "x")[0]


def test_the_swap_keeps_two_matrices_a_block(model: Path) -> None:
    """o_proj (48 x 64) and down_proj (48 x 80) of three blocks, 2 bytes each."""
    assert session_of(model).swapped_bytes == 3 * (48 * 64 + 48 * 80) * 2


def test_the_identity_holds_the_hash_of_every_file_it_reads(model: Path) -> None:
    assert set(session_of(model).identity["data_hashes"]) == {"train_pairs", "test_requests", "test_answerable"}


def test_two_spellings_of_a_path_are_one_identity(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requests.json").write_text(json.dumps(["Where is my key?", "Where is my hat?"]))
    monkeypatch.chdir(tmp_path)
    here, absolute = (
        session_of(model, data__test_requests=name).identity for name in ("./requests.json", str(tmp_path / "requests.json"))
    )
    assert without_spelling(here) == without_spelling(absolute)


def test_another_content_is_another_identity(model: Path, tmp_path: Path) -> None:
    file, found = tmp_path / "requests.json", []
    for text in ("Where is my key?", "Where is my hat?"):
        file.write_text(json.dumps([text, "Where is it?"]))
        found.append(without_spelling(session_of(model, data__test_requests=str(file)).identity))
    assert found[0] != found[1]


def test_directions_do_not_depend_on_alpha(model: Path) -> None:
    assert session_of(model, edit__alpha=0.5).directions_inputs() == session_of(model).directions_inputs()


def test_directions_depend_on_the_position(model: Path) -> None:
    other = session_of(model, directions__position="last_instruction")
    assert other.directions_inputs() != session_of(model).directions_inputs()


def test_a_model_without_a_tokenizer_is_named(llama_dir: Path) -> None:
    with pytest.raises(EngineError, match="has no tokenizer"):
        session_of(llama_dir).check_prompts()


def test_an_identity_opens_no_tokenizer(model: Path) -> None:
    """A finished run answers in a second: opening one imports torch."""
    session = session_of(model)
    assert session.identity["rendering_hashes"]
    assert "renderer" not in vars(session)


def test_another_template_in_a_named_file_is_another_identity(model: Path, tmp_path: Path) -> None:
    found = set()
    for text in ("{{ messages[0]['content'] }} a ", "{{ messages[0]['content'] }} b "):
        (tmp_path / "mine.jinja").write_text(text)
        identity = session_of(model, model__chat_template=str(tmp_path / "mine.jinja")).identity
        found.add(identity["rendering_hashes"]["chat_template"])
    assert len(found) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"directions.layers": [3]}, 5),  # the default sweep has top5
        ({"directions.layers": list(range(1, 16))}, 15),
        ({"directions.layers": list(range(1, 16)), "directions.k": 2}, 5),
        ({"directions.layers": "sweep", "sweep.subspaces": ["top3", "1-12"]}, 12),
    ],
)
def test_an_engine_has_room_for_the_largest_subspace(settings: dict[str, object], expected: int) -> None:
    from engine.runs.session import most_directions

    assert most_directions(load_config("smollm2_135m_k1", settings)) == expected
