"""bin/compare without an engine: a stand-in answers by the variant's hash, all else is the project's own."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.compare.run import compare
from engine.errors import EngineError
from engine.runs import parquet
from engine.runs.session import Session
from tests.edited import changed_copy, is_writer, without
from tests.small_run import SmallReplica, config_of, make_inputs
from tests.tiny import HIDDEN, save_tokenizer

DIRECTION = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3))
CARD = "| **KL divergence** | 0.02 |\n| **Refusals** | 3/100 |\n"


def edit(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return without(tensor, DIRECTION) if is_writer(name) else tensor


def scaled(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor * 1.5 if name.endswith("q_proj.weight") else tensor


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    make_inputs(folder)
    changed_copy(folder / "model", folder / "erased", edit)
    (folder / "erased" / "README.md").write_text(CARD)
    changed_copy(folder / "model", folder / "scaled", scaled)
    return folder


def compared(inputs: Path, out: Path, names: tuple[str, ...] = ("erased", "scaled"), **options: Any) -> dict[str, Any]:
    session = Session(config_of(inputs, given=False))
    session.use(SmallReplica())  # type: ignore[arg-type]
    folders = [str(inputs / name) for name in names]
    return compare(session.config, folders, out, num_kl=0, session=session, **options)


@pytest.fixture(scope="module")
def found(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("run") / "compare"
    return compared(inputs, out, directions=inputs / "directions.safetensors"), out


def test_there_is_a_row_for_the_base_and_each_folder(found: tuple[dict[str, Any], Path]) -> None:
    assert [row["variant"] for row in found[0]["rows"]] == ["base", "erased", "scaled"]


def test_an_edit_is_named_beside_its_rates(found: tuple[dict[str, Any], Path]) -> None:
    assert found[0]["rows"][1]["edit"] == "1 direction projected out (all) (6 tensors in 3 blocks)"


def test_rates_are_those_of_the_folders_own_responses(found: tuple[dict[str, Any], Path]) -> None:
    assert [row["declined"]["n"] for row in found[0]["rows"]] == [12, 12, 12]


def test_a_cards_claim_stands_beside_the_measured_rate(found: tuple[dict[str, Any], Path]) -> None:
    assert ["erased", "Refusals 3/100"] in [[row["variant"], row["the card says"]] for row in found[0]["claims"]]


def test_every_layers_given_direction_is_laid_beside_the_edit(found: tuple[dict[str, Any], Path]) -> None:
    assert len(found[0]["directions"][0]["by_layer"]) == 4


def test_rows_say_how_the_engine_held_the_folder(found: tuple[dict[str, Any], Path]) -> None:
    assert {row["form"] for row in parquet.read_rows(found[1] / "rollouts.parquet")} == {"base", "checkpoint"}


def test_the_page_has_the_table(found: tuple[dict[str, Any], Path]) -> None:
    assert "Checkpoints against their base" in (found[1] / "report.html").read_text()


def test_the_page_does_not_take_a_checkpoint_for_one_direction(found: tuple[dict[str, Any], Path]) -> None:
    assert "Is one direction sufficient" not in (found[1] / "report.html").read_text()


def test_a_finished_comparison_generates_nothing_again(inputs: Path, found: tuple[dict[str, Any], Path]) -> None:
    before = (found[1] / "rollouts.parquet").stat().st_mtime_ns
    again = compared(inputs, found[1], directions=inputs / "directions.safetensors")
    assert (again, (found[1] / "rollouts.parquet").stat().st_mtime_ns) == (found[0], before)


def test_a_folder_more_is_another_comparison(inputs: Path, found: tuple[dict[str, Any], Path]) -> None:
    with pytest.raises(EngineError, match="was made under another configuration"):
        compared(inputs, found[1], ("erased",))


def test_two_folders_of_the_same_weights_are_refused(inputs: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(inputs / "erased", tmp_path / "twin")
    with pytest.raises(EngineError, match="erased and twin hold the same weights"):
        compared(inputs, tmp_path / "out", ("erased", str(twin)))


def test_another_vocabulary_is_refused_before_anything_is_written(inputs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(inputs / "erased", tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"a": 69', '"a": 70').replace('"b": 70', '"b": 69'))
    with pytest.raises(EngineError, match="another vocabulary than the base"):
        compared(inputs, tmp_path / "out", (str(other),))
    assert not (tmp_path / "out").exists()


def test_what_a_folder_lacks_is_told(inputs: Path, tmp_path: Path) -> None:
    def template_of_its_own(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 2 if name.endswith("model.norm.weight") else tensor

    other = save_tokenizer(changed_copy(inputs / "model", tmp_path / "other", template_of_its_own))
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert compared(inputs, tmp_path / "out", (str(other),))["rows"][1]["problems"] == "template: another"


def test_no_folder_is_an_error(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Name the folders to compare"):
        compared(inputs, tmp_path / "out", ())
