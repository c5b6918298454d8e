"""A new study is one file of engine/study: the example of engine/study's README, on a tiny Llama."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import engine.study
from engine import config_for
from engine.commands.study import app
from engine.configs.load import config_toml
from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.study import named
from engine.study.named import run_study, study_files
from extraction.directions import unit_rows
from extraction.files import load_directions
from tests.tiny import BLOCKS, save_tiny, save_tokenizer

EXAMPLE = '''
"""neighbours.json: how far a layer's direction is the next layer's."""

from typing import Any

from engine.environment import describe
from engine.study.opening import Study
from extraction.directions import unit_rows


def make_neighbours(study: Study, *, first: int = 1) -> dict[str, Any]:
    """The cosine of each layer's direction with the next one's, from layer `first` on."""
    units_LH = unit_rows(study.directions().direction_LH)
    cosines = (units_LH[first:-1] * units_LH[first + 1 :]).sum(dim=-1).tolist()
    rows = [{"layer": first + place, "cosine_to_next": cosine} for place, cosine in enumerate(cosines)]
    return {"rows": rows, "note": "Layers: resid_pre. No held-out pair made these directions.", **describe()}
'''


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A tiny model, pairs that make directions, and others that are held out; all harmless."""
    folder = tmp_path_factory.mktemp("study")
    save_tokenizer(save_tiny("llama", folder / "model", dtype=torch.float32))
    for name, count in (("pairs", 8), ("held_out", 4)):
        pairs = [[f"Is {name} {number} on?", f"Name {name} {number}."] for number in range(count)]
        (folder / f"{name}.json").write_text(json.dumps(pairs))
    for name in ("requests", "answerable"):
        (folder / f"{name}.json").write_text(json.dumps([f"{name} {number}?" for number in range(3)]))
    files = {name: folder / f"{name}.json" for name in ("requests", "answerable")}
    overrides = {"data.selection_pairs": str(folder / "held_out.json"), "sampling.max_tokens": 4}
    return config_for(folder / "model", folder / "pairs.json", layers=[1], **files, overrides=overrides)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example beside the studies that are there; its file."""
    file = tmp_path / "neighbours.py"
    file.write_text(EXAMPLE)
    monkeypatch.setattr(engine.study, "__path__", [*engine.study.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield file
    sys.modules.pop("engine.study.neighbours", None)
    vars(engine.study).pop("neighbours", None)


def test_a_study_that_is_not_there_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"Unknown study 'neighbours': no engine/study/neighbours\.py has make_neighbours"):
        run_study("neighbours", config, tmp_path / "run", {})


def test_its_file_alone_makes_it_known(added: Path) -> None:
    assert study_files()["neighbours"] == added


def test_its_rows_are_the_cosines_of_the_runs_directions(added: Path, config: RunConfig, tmp_path: Path) -> None:
    rows = run_study("neighbours", config, tmp_path / "run", {})["rows"]
    units = unit_rows(load_directions(tmp_path / "run" / "directions.safetensors").mean_difference_LH)
    expected = [float(units[layer] @ units[layer + 1]) for layer in range(1, BLOCKS)]
    assert [row["cosine_to_next"] for row in rows] == pytest.approx(expected, abs=1e-5)


def test_options_reach_it(added: Path, config: RunConfig, tmp_path: Path) -> None:
    assert run_study("neighbours", config, tmp_path / "run", {"first": 2})["rows"][0]["layer"] == 2


def test_an_option_that_it_does_not_take_is_refused(added: Path, config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="The study 'neighbours' has no option 'frist'; it takes first"):
        run_study("neighbours", config, tmp_path / "run", {"frist": 2})


def test_it_is_made_once_and_again_where_its_file_has_changed(added: Path, config: RunConfig, tmp_path: Path) -> None:
    path, finished = tmp_path / "run", []
    for text in (EXAMPLE, EXAMPLE, EXAMPLE + "\n# another line\n"):
        added.write_text(text)
        run_study("neighbours", config, path, {})
        finished.append((path / "neighbours.json").stat().st_mtime_ns)
    assert finished[0] == finished[1] < finished[2]


def test_the_report_shows_its_rows_and_its_note(added: Path, config: RunConfig, tmp_path: Path) -> None:
    run_study("neighbours", config, tmp_path / "run", {})
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(text in page for text in ("Study: neighbours", "cosine_to_next", "No held-out pair made these directions."))


def test_the_command_prints_what_it_found(added: Path, config: RunConfig, tmp_path: Path) -> None:
    variant = tmp_path / "tiny.toml"
    variant.write_text(config_toml(config))
    command = ["neighbours", "--variant", str(variant), "--out", str(tmp_path / "run"), "--option", "first=2", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and [row["layer"] for row in json.loads(done.stdout)["rows"]] == [2]


def test_a_name_that_another_file_of_a_run_has_is_refused() -> None:
    with pytest.raises(EngineError, match="A study cannot be called 'summary'"):
        named.file_of("summary")


def test_studies_with_commands_of_their_own_are_not_called_by_name() -> None:
    assert not {"ablation", "regrowth", "geometry", "panel"} & study_files().keys()
