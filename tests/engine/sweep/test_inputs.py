"""What chooses never tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cluster import share_of_cores
from engine.configs.load import load_config
from engine.errors import EngineError
from engine.evaluate.placement import check_address, check_engines
from engine.runs.selection import with_selection
from engine.runs.session import Session
from engine.sweep.inputs import SweepInputs, check_inputs

pytestmark = pytest.mark.usefixtures("smollm2_dir")


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def prepared(**overrides: Any) -> tuple[Session, SweepInputs]:
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    config, pairs = with_selection(load_config("smollm2_135m_k1", {"data.num_answerable": 0, **changed}))
    session = Session(config)
    return session, SweepInputs(pairs, session.requests)


def test_the_embedded_splits_share_no_prompt() -> None:
    session, inputs = prepared()
    check_inputs(session.config, session.pairs, inputs)
    assert len(inputs.selection) == 128 and len(inputs.test) == 500
    assert not {r.prompt_id for r in inputs.selection} & {r.prompt_id for r in inputs.race}


def test_a_test_request_that_also_chooses_is_refused_whatever_its_case(tmp_path: Path) -> None:
    pairs = [[f"Where is my key number {n}?", f"What is a key {n}?"] for n in range(40)]
    tests = write(tmp_path / "t.json", ["where is  my key number 7?", "Something else?"])
    session, inputs = prepared(data__selection_pairs=write(tmp_path / "s.json", pairs), data__test_requests=tests)
    with pytest.raises(EngineError, match=r"1 selection prompt\(s\) are also test prompts, such as 'Where is my key number 7\?'"):
        check_inputs(session.config, session.pairs, inputs)
    session, inputs = prepared(data__train_pairs=write(tmp_path / "p.json", pairs), data__test_requests=tests)
    with pytest.raises(EngineError, match="1 training prompt"):
        check_inputs(session.config, session.pairs, inputs)


def test_pairs_that_train_may_not_choose(tmp_path: Path) -> None:
    pairs = [[f"Declined {n}?", f"Answered {n}?"] for n in range(40)]
    file = write(tmp_path / "p.json", pairs)
    session, inputs = prepared(data__train_pairs=file, data__selection_pairs=file)
    with pytest.raises(EngineError, match=r"80 training prompt\(s\) are also selection prompts, such as 'Declined 0\?'"):
        check_inputs(session.config, session.pairs, inputs)


def test_one_test_request_is_too_few_for_an_interval() -> None:
    session, inputs = prepared(data__num_requests=1)
    with pytest.raises(EngineError, match="takes two test requests or more, found 1"):
        check_inputs(session.config, session.pairs, inputs)


def test_own_pairs_without_a_selection_hold_out_a_quarter(tmp_path: Path) -> None:
    pairs = [[f"Declined {n}?", f"Answered {n}?"] for n in range(41)]
    session, inputs = prepared(data__train_pairs=write(tmp_path / "p.json", pairs))
    assert (len(session.pairs), len(inputs.pairs)) == (31, 10)
    assert not {pair.declined for pair in session.pairs} & {pair.declined for pair in inputs.pairs}
    with pytest.raises(
        EngineError, match=r"3 pairs, too few to hold some out\. Name others with --set data\.selection_pairs=FILE"
    ):
        prepared(data__train_pairs=write(tmp_path / "few.json", pairs[:3]))


def test_fewer_selection_prompts_than_a_round_needs_are_refused(tmp_path: Path) -> None:
    few = write(tmp_path / "s.json", [[f"Declined {n}?", f"Answered {n}?"] for n in range(20)])
    session, inputs = prepared(data__selection_pairs=few)
    with pytest.raises(EngineError, match=r"sweep\.first_round asks for 32 selection pairs and there are 20"):
        check_inputs(session.config, session.pairs, inputs)
    session, inputs = prepared(data__selection_pairs=few, sweep__exhaustive=True)
    check_inputs(session.config, session.pairs, inputs)


def test_more_engines_than_the_machine_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match=r"--engines 4096, but this machine has \d+ "):
        check_engines(4096, 1)
    assert check_engines(1, 1) == 1


def test_cores_are_shared_out_without_overlap() -> None:
    everything = share_of_cores(0, 1)
    parts = [share_of_cores(place, len(everything)) for place in range(len(everything))]
    assert sorted(core for part in parts for core in part) == everything and all(len(part) == 1 for part in parts)


def test_a_local_ray_address_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(EngineError, match="--engines 4096, but this machine has"):
        check_engines(4096, 1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:1"])
def test_an_unreachable_ray_address_is_named(address: str) -> None:
    with pytest.raises(EngineError, match=f"RAY_ADDRESS={address} cannot be reached .*; unset it to run here"):
        check_address(address)
