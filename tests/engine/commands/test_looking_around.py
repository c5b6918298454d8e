"""bin/config, bin/new, bin/list and bin/cache: what there is, what may be set, and a file of one's own."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.commands.__main__ import app
from engine.configs.load import load_config, read_extended
from engine.configs.schema import RunConfig
from engine.runs.lock import locked
from engine.runs.manifest import write_manifest

MODEL = "embedded:smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*arguments: str, expected: int = 0) -> str:
    found = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert found.exit_code == expected, found.output
    return found.stderr if expected else found.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(ran(*arguments, "--json"))


def keys(*arguments: str) -> Mapping[str, Mapping[str, str]]:
    return {key["name"]: key for key in as_json("config", *arguments)}


def test_config_shows_every_key_of_every_section() -> None:
    shown = set(keys())
    inner = {name: getattr(field.annotation, "model_fields", None) for name, field in RunConfig.model_fields.items()}
    expected = {f"{name}.{key}" for name, fields in inner.items() if fields and name != "published" for key in fields}
    assert expected <= shown


def test_every_key_has_a_sentence() -> None:
    assert [name for name, key in keys().items() if not key["meaning"]] == []


def test_config_names_the_file_that_has_the_last_word() -> None:
    found = keys("--variant", "smollm2_135m_k1")
    assert found["directions.layers"]["source"] == "smollm2_135m_k1.toml"
    assert found["sweep.max_kl"] == found["sweep.max_kl"] | {"value": "0.45", "default": "0.1", "source": "smollm2_135m.toml"}
    assert found["vllm.max_model_len"]["source"] == "smollm2_135m.toml"
    assert found["sampling.seed"]["source"] == "default"


def test_a_flag_has_the_last_word() -> None:
    found = keys("--variant", "smollm2_135m_k1", "--set", "sweep.max_kl=0.2", "sweep.max_kl")
    assert found["sweep.max_kl"]["source"] == "flag"
    assert found["sweep.max_kl"]["value"] == "0.2"


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    assert "Did you mean 'sampling.max_tokens'?" in ran("config", "sampling.max_token", expected=2)


def test_new_writes_a_file_that_the_variants_name_finds(smollm2_dir: Path, here: Path) -> None:
    said = ran("new", "mine", "--model", str(smollm2_dir), "--layers", "3,4", "--set", "sampling.max_tokens=9")
    assert "mine.toml written. Next: bin/rollout --variant mine" in said
    config = load_config("mine")
    assert (config.variant, config.directions.layers, config.sampling.max_tokens) == ("mine", [3, 4], 9)
    assert Path(config.model.path) == smollm2_dir.resolve()


def test_every_default_of_new_is_the_schemas(here: Path) -> None:
    """With every # taken away that stands before a key that has a value, the file is still valid and says the same."""
    ran("new", "mine", "--model", MODEL, "--layers", "3")
    lines = (here / "mine.toml").read_text().splitlines()
    is_key = [line.startswith("# ") and " = " in line and line.split(" ")[1].isidentifier() for line in lines]
    bare = [line[2:] if key and "not set" not in line else line for line, key in zip(lines, is_key, strict=True)]
    (here / "bare.toml").write_text("\n".join(bare))
    assert sum(is_key) > 40
    assert load_config("bare").model_copy(update={"variant": "mine"}) == load_config("mine")


def test_new_without_a_layer_points_at_the_sweep(here: Path) -> None:
    assert "Next: bin/sweep --variant mine" in ran("new", "mine", "--model", MODEL)


def test_new_overwrites_nothing(here: Path) -> None:
    (here / "mine.toml").write_text("kept")
    assert "mine.toml exists" in ran("new", "mine", "--model", MODEL, expected=2)
    assert (here / "mine.toml").read_text() == "kept"


def test_new_looks_at_the_model_before_it_writes(here: Path) -> None:
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text("{}")
    said = ran("new", "mine", "--model", str(here / "model"), expected=2)
    assert "bin/doctor" in said
    assert not (here / "mine.toml").exists()


def test_new_looks_at_the_prompts_before_it_writes(here: Path) -> None:
    (here / "pairs.csv").write_text("declined,answered\na,b,c\n")
    ran("new", "mine", "--model", MODEL, "--pairs", "pairs.csv", expected=2)
    assert not (here / "mine.toml").exists()


def run_folder(folder: Path, stages: list[str]) -> None:
    folder.mkdir(parents=True)
    config = {"variant": folder.name, "directions": {}}
    manifest = {"format": "refusal-run/2", "kind": "run", "stages": {name: {} for name in stages}, "files": {}}
    write_manifest(folder, manifest | {"identity": {"config": config}})


def test_list_names_each_run_with_its_state(here: Path) -> None:
    run_folder(here / "runs" / "begun", [])
    run_folder(here / "runs" / "half", ["directions"])
    run_folder(here / "runs" / "whole", ["directions", "summary"])
    (here / "runs" / "whole" / "summary.json").write_text("{}")
    (here / "runs" / "broken").mkdir()
    (here / "runs" / "broken" / "manifest.json").write_text("{")
    found = {run["folder"]: run["state"] for run in as_json("list", "runs")["runs"]}
    assert found == {"begun": "begun", "half": "unfinished", "whole": "finished", "broken": "damaged"}


def test_a_run_that_somebody_works_in_is_running(here: Path) -> None:
    run_folder(here / "runs" / "half", ["directions"])
    with locked(here / "runs" / "half"):
        assert as_json("list", "runs")["runs"][0]["state"] == "running"


def test_list_names_the_variants_beside_it_too(here: Path) -> None:
    ran("new", "mine", "--model", MODEL, "--layers", "3")
    names = [row["name"] for row in as_json("list", "variants")["variants"]]
    assert "mine" in names
    assert "smollm2_135m_k1" in names


def test_a_list_fits_80_columns() -> None:
    assert max(map(len, ran("list").splitlines())) <= 80


def test_cache_counts_what_it_holds_and_removes_a_part(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(here / "cache"))
    for name in ("served/one/model.safetensors", "calibrations/offline.json"):
        file = here / "cache" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 1000)
    assert {part["name"]: part["size"] for part in as_json("cache")} == {"served": 1000, "calibrations": 1000}
    assert [part["name"] for part in as_json("cache", "--clean", "served")] == ["calibrations"]
    assert not (here / "cache" / "served").exists()


def test_an_unknown_part_of_the_cache_removes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(here / "cache"))
    (here / "cache" / "served").mkdir(parents=True)
    (here / "cache" / "served" / "file").write_text("x")
    assert "The cache has no 'nosuch'" in ran("cache", "--clean", "served", "--clean", "nosuch", expected=2)
    assert (here / "cache" / "served" / "file").exists()


def test_a_file_that_was_extended_is_read_as_before(here: Path) -> None:
    (here / "base.toml").write_text('[model]\npath = "a"\n[sampling]\nseed = 1\n')
    (here / "top.toml").write_text('extends = "base.toml"\n[sampling]\nmax_tokens = 3\n')
    assert read_extended(here / "top.toml") == {"model": {"path": "a"}, "sampling": {"seed": 1, "max_tokens": 3}}
    assert tomllib.loads((here / "top.toml").read_text())["extends"] == "base.toml"
