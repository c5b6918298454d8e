"""An edited folder is made again from its own record, byte for byte; what differs is named. A tiny model, prompts of its own."""

import json
import shutil
from pathlib import Path

import pytest

from editing.errors import EditError
from engine.checkpoints.edited_folder import folder_of
from engine.checkpoints.export import write_variant
from engine.checkpoints.replay import replay
from engine.configs.load import load_config
from engine.errors import EngineError
from tests.small_run import make_inputs


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its prompts, and two edits of it made from them: a checkpoint and an adapter."""
    folder = tmp_path_factory.mktemp("replayed")
    make_inputs(folder)
    overrides = {"model.path": str(folder / "model"), "data.train_pairs": str(folder / "pairs.csv"), "directions.layers": [1, 2]}
    config = load_config("smollm2_135m_k1", overrides)
    write_variant(config, folder / "run", folder / "edited")
    write_variant(config, folder / "run", folder / "adapter", as_adapter=True)
    return folder


def test_a_folder_is_made_again_byte_for_byte(work: Path) -> None:
    assert replay(work / "edited", str(work / "model")).difference is None


def test_a_folder_is_made_again_from_its_prompts(work: Path) -> None:
    found = replay(work / "edited", str(work / "model"), pairs=str(work / "pairs.csv"), from_data=True)
    assert found.difference is None


def test_a_card_stands_for_its_folder(work: Path) -> None:
    assert replay(work / "edited" / "README.md", str(work / "model")).difference is None


def test_an_adapter_is_made_again_byte_for_byte(work: Path) -> None:
    assert replay(work / "adapter", str(work / "model")).difference is None


def test_what_was_made_is_kept_where_that_is_asked_for(work: Path, tmp_path: Path) -> None:
    replay(work / "edited", str(work / "model"), out=tmp_path / "again")
    assert (tmp_path / "again" / "edit.json").read_bytes() == (work / "edited" / "edit.json").read_bytes()


def test_every_file_counts(work: Path) -> None:
    assert replay(work / "edited", str(work / "model")).files == len(
        [one for one in (work / "edited").rglob("*") if one.is_file()]
    )


def test_a_changed_weight_is_named_with_its_tensor(work: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(work / "edited", tmp_path / "changed")
    data = bytearray((changed / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (changed / "model.safetensors").write_bytes(data)
    found = replay(changed, str(work / "model"))
    assert found.difference == f"model.safetensors differs at byte {len(data) - 1}, in model.norm.weight"


def test_a_file_more_is_named(work: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(work / "edited", tmp_path / "changed")
    (changed / "more.txt").write_text("more")
    assert "more.txt is in" in str(replay(changed, str(work / "model")).difference)


def test_the_record_names_no_folder_of_this_machine(work: Path) -> None:
    assert str(work) not in (work / "edited" / "edit.json").read_text()


@pytest.mark.parametrize("field", ["base_hash", "data_hashes", "directions_hash", "basis_hash", "versions", "recipe"])
def test_the_record_carries_what_a_replay_takes(work: Path, field: str) -> None:
    assert json.loads((work / "edited" / "edit.json").read_text())[field]


def test_a_base_that_changed_is_refused(work: Path, tmp_path: Path) -> None:
    other = shutil.copytree(work / "model", tmp_path / "model")
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(EngineError, match="was made from the base"):
        replay(work / "edited", str(other))


def test_other_prompts_are_refused(work: Path, tmp_path: Path) -> None:
    other = tmp_path / "pairs.csv"
    other.write_text("declined,answered\nCall Ann.,Who is Ann?\n")
    with pytest.raises(EngineError, match="holds other prompts"):
        replay(work / "edited", str(work / "model"), pairs=str(other), from_data=True)


def test_prompts_that_are_not_at_hand_are_asked_for(work: Path) -> None:
    with pytest.raises(EngineError, match=r"prompts are the file pairs\.csv\. Give it with --pairs"):
        replay(work / "edited", str(work / "model"), from_data=True)


def test_a_card_without_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# a model")
    with pytest.raises(EngineError, match=r"has no record: there is no edit\.json"):
        folder_of(tmp_path / "README.md")


def test_a_base_that_is_not_named_is_asked_for(work: Path) -> None:
    with pytest.raises(EngineError, match=r"The record.s base is model\. Name its folder with --base"):
        replay(work / "edited", None)


def test_a_damaged_record_is_refused(work: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(work / "edited", tmp_path / "changed")
    (changed / "edit.json").write_text("{")
    with pytest.raises(EditError, match="cannot be read as JSON"):
        replay(changed, str(work / "model"))
