"""The embedded sets of nine kinds of refusal: sizes, splits apart, twins, and that the templates make the files."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from extraction.conversations import Conversation
from extraction.prompts import EMBEDDED_DIR, load_pairs

FOLDER = EMBEDDED_DIR / "refusals"
KINDS = {
    *("inability", "missing_information", "false_premise", "unknowable_future", "personal_opinion"),
    *("policy", "bait", "role_limits", "endless"),
}
SIZES = {"train": 48, "selection": 24, "test": 40}
WRITTEN = sorted(KINDS - {"inability"})


def rows(kind: str, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / f"{kind}_{split}.jsonl").read_text().splitlines()]


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def test_the_nine_named_kinds_are_there() -> None:
    assert {file.stem.rpartition("_")[0] for file in FOLDER.glob("*.jsonl")} == KINDS


@pytest.mark.parametrize("split", SIZES)
def test_each_kind_has_its_pairs(split: str) -> None:
    assert {len(load_pairs(f"embedded:refusals/{kind}_{split}")) for kind in KINDS} == {SIZES[split]}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_prompt_stands_twice(kind: str) -> None:
    texts = [
        normal(row.get("system", "") + row[side])
        for split in SIZES
        for row in rows(kind, split)
        for side in ("declined", "answered")
    ]
    assert sorted({text for text in texts if texts.count(text) > 1}) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_twin_is_another_request(kind: str) -> None:
    assert [row for split in SIZES for row in rows(kind, split) if normal(row["declined"]) == normal(row["answered"])] == []


def test_no_two_splits_share_a_template() -> None:
    seen: list[str] = []
    for kind in WRITTEN:
        table = tomllib.loads((FOLDER / f"{kind}.toml").read_text())
        seen += [normal("".join(template[:-1])) for split in SIZES for template in table[split]]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_kind_has_templates_enough_for_an_interval(kind: str) -> None:
    assert {split: len({row["category"] for row in rows(kind, split)}) for split in SIZES} == {
        "train": 12,
        "selection": 8,
        "test": 10,
    }


@pytest.mark.parametrize("split", ["selection", "test"])
def test_inability_is_tested_on_kinds_that_do_not_choose(split: str) -> None:
    other = "test" if split == "selection" else "selection"
    assert {row["category"] for row in rows("inability", split)} & {row["category"] for row in rows("inability", other)} == set()


@pytest.mark.parametrize("kind", ["policy", "role_limits"])
def test_a_policys_twin_stands_under_the_same_system_text(kind: str) -> None:
    pairs = [pair for split in SIZES for pair in load_pairs(f"embedded:refusals/{kind}_{split}")]
    systems = [
        (pair.declined.system, pair.answered.system)
        for pair in pairs
        if isinstance(pair.declined, Conversation) and isinstance(pair.answered, Conversation)
    ]
    assert len(systems) == len(pairs) and all(first == second for first, second in systems)


def test_the_files_are_what_the_templates_give(tmp_path: Path) -> None:
    shutil.copy(EMBEDDED_DIR / "build_refusals.py", tmp_path)
    shutil.copy(EMBEDDED_DIR / "templates.toml", tmp_path)
    shutil.copytree(FOLDER, tmp_path / "refusals", ignore=shutil.ignore_patterns("*.jsonl"))
    subprocess.run([sys.executable, tmp_path / "build_refusals.py"], check=True)
    changed = [
        file.name for file in FOLDER.glob("*.jsonl") if file.read_bytes() != (tmp_path / "refusals" / file.name).read_bytes()
    ]
    assert changed == []
