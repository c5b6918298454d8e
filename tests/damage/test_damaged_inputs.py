"""Every file of a model's folder and of the cache, damaged in every way, against the run that reads it."""

import sys
from pathlib import Path

import pytest

from engine.paths import cache_dir
from tests.damage.damages import DAMAGES, copy_of
from tests.damage.test_damage_table import outcome
from tests.small_run import main, make_inputs

MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
STORE = "checkpoint_identities.json"
# Damage after which a folder may be a whole one: what it holds decides, and it becomes a part of the run's identity.
MAY_BE_WHOLE = ("flipped early", "flipped", "flipped late", "newer", "foreign", "last byte gone", "empty", "cut")
FILE_ALONE = ("model.safetensors",)  # whose every bit counts: directions name the base they are of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_inputs(folder)
    return folder


def copied(whole: Path, folder: Path) -> Path:
    """Inputs in a folder of their own, which the configuration names."""
    return copy_of(whole, folder)


@pytest.mark.parametrize("file", MODEL)
def test_a_damaged_model_is_refused_before_anything_is_written(whole: Path, tmp_path: Path, file: str) -> None:
    check(whole, tmp_path, file, ("cut", "flipped", "a pipe"))


@pytest.mark.slow
@pytest.mark.parametrize("file", MODEL)
def test_so_it_is_in_every_way(whole: Path, tmp_path: Path, file: str) -> None:
    check(whole, tmp_path, file, tuple(DAMAGES))


def check(whole: Path, tmp_path: Path, file: str, damages: tuple[str, ...]) -> None:
    wrong = []
    for damage in damages:
        folder = copied(whole, tmp_path / damage)
        DAMAGES[damage](folder / "model" / file)
        try:
            found = outcome(lambda folder=folder: main(folder, folder / "run"))
        except Exception as error:  # a traceback or a hang of the command's
            wrong.append(f"{damage}: {type(error).__name__}: {str(error)[:300]}")
            continue
        if found.status == 0 and damage in MAY_BE_WHOLE and file not in FILE_ALONE:
            continue
        refused = (found.status, found.said.count("error: ")) == (2, 1) and "Traceback" not in found.said
        if not refused or (folder / "run").exists() or str(folder) not in found.said:
            wrong.append(f"{damage}: exit {found.status}, {found.said[-300:]}")
    print(f"{file}: {len(damages)} damages, {len(wrong)} wrong", file=sys.stderr)
    assert not wrong, "\n".join(wrong)


def test_a_damaged_store_of_the_cache_is_made_again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    assert outcome(lambda: main(whole, tmp_path / "run")).status == 0
    original = (cache_dir() / STORE).read_bytes()
    for damage in ("cut", "flipped", "a link to nowhere", "a pipe"):
        DAMAGES[damage](cache_dir() / STORE)
        found = outcome(lambda: main(whole, tmp_path / "run"))
        assert (found.status, damage) == (0, damage), found.said
        assert (cache_dir() / STORE).read_bytes() == original, damage
        assert not (cache_dir() / STORE).is_symlink()
