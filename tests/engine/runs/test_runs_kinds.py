"""Kinds named, found and split; quarters drawn by kind; test prompts kept apart from training prompts."""

from pathlib import Path
from typing import Any

import pytest

from engine.configs.load import load_config
from engine.errors import EngineError
from engine.runs import kinds
from engine.runs.requests import read_prompts
from engine.runs.selection import check_tested_apart, with_selection
from engine.runs.session import Session
from extraction.prompts import Pair, Prompt

PAIRS = [Pair(f"Can you lift box {number}?", f"What is box {number}?", f"kind {number % 10}") for number in range(80)]


def config(**keys: Any) -> Any:
    return load_config("smollm2_135m_k1", {name.replace("__", "."): value for name, value in keys.items()})


def test_a_quarter_is_drawn_in_whole_kinds_by_seed() -> None:
    places = kinds.held_out_places(PAIRS, 0)
    held = {PAIRS[place].category for place in places}
    assert places == {place for place, pair in enumerate(PAIRS) if pair.category in held}
    assert len(places) == 16
    assert places == kinds.held_out_places(PAIRS, 0) != kinds.held_out_places(PAIRS, 1)


def test_a_quarter_of_pairs_without_kinds_is_not_the_last_one() -> None:
    plain = [Pair(pair.declined, pair.answered) for pair in PAIRS]
    places = kinds.held_out_places(plain, 0)
    assert len(places) == 20
    assert places != set(range(60, 80))


def test_prompts_of_one_template_are_one_kind() -> None:
    prompts = [Prompt(f"Could you turn up the {what} on my speaker?") for what in ("jazz", "reggae", "old folk")]
    prompts += [Prompt("What colour is the hat that I wear today?")]
    labels = [prompt.category for prompt in kinds.with_kinds("auto", [], prompts)[1][0]]
    assert labels[0] == labels[1] == labels[2] != labels[3]


def test_each_prompt_is_its_own_kind_where_asked() -> None:
    assert {pair.category for pair in kinds.with_kinds("prompt", PAIRS)[0]} == {""}


def test_split_kinds_make_directions_of_half_and_mark_the_requests_of_that_half() -> None:
    pairs, requests = read_prompts(config(data__split="kinds").data, 0)
    trained = {pair.category for pair in pairs}
    seen = {request.category for request in requests if request.split == kinds.SEEN}
    unseen = {request.category for request in requests if request.split == kinds.TEST and request.kind == "declined"}
    assert seen == trained
    assert not unseen & trained
    assert abs(len(seen) - len(unseen)) <= 1


def test_split_kinds_need_kinds_in_common(tmp_path: Path) -> None:
    file = tmp_path / "requests.json"
    file.write_text('["Where is it?", "Who is there?"]')
    with pytest.raises(EngineError, match=r"--split kinds needs 4 kinds or more .* found 0"):
        read_prompts(config(data__split="kinds", data__test_requests=str(file)).data, 0)


@pytest.mark.usefixtures("smollm2_dir")
def test_the_pairs_that_are_held_out_make_no_directions(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    lines = [f'{{"declined": "{p.declined}", "answered": "{p.answered}", "category": "{p.category}"}}' for p in PAIRS]
    file.write_text("\n".join(lines))
    settled, held = with_selection(config(data__train_pairs=str(file)))
    made_of = Session(settled).pairs
    assert len(made_of) + len(held) == len(PAIRS)
    assert not {pair.category for pair in made_of} & {pair.category for pair in held}


@pytest.mark.usefixtures("smollm2_dir")
def test_a_rollout_refuses_test_requests_that_are_training_prompts(tmp_path: Path) -> None:
    pairs, requests = tmp_path / "pairs.json", tmp_path / "requests.json"
    pairs.write_text('[["Can you see me?", "Can you count to ten?"], ["Can you hear me?", "Can you spell it?"]]')
    requests.write_text('["can you  see me?", "Do you smell that?"]')
    session = Session(config(data__train_pairs=str(pairs), data__test_requests=str(requests)))
    with pytest.raises(EngineError, match=r"1 training prompt.* are also test prompts"):
        check_tested_apart(session)


def test_near_duplicates_are_named_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    kinds.name_near_duplicates("test", ["Can you lift the big red box?"], "training", ["Can you lift the big blue box?"])
    assert "near-duplicates: 1 of 1 test prompts differ from a training prompt by a fifth" in capsys.readouterr().err


def test_prompts_that_differ_are_not_called_near_duplicates(capsys: pytest.CaptureFixture[str]) -> None:
    kinds.name_near_duplicates("test", ["Can you lift it?"], "training", ["What is the tallest tree?"])
    assert capsys.readouterr().err == ""
