"""The cache of answers: durable, shared between processes, and set aside where it is damaged."""

import multiprocessing
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from judging.cache import ReplyCache
from judging.calls import Outcome
from judging.errors import JudgeError


def address(number: int) -> bytes:
    return number.to_bytes(32, "big")


def done(number: int, reply: str = "{}") -> Outcome:
    return Outcome(address(number), "done", reply, None, 2, 12.5, 100, 10, 0.25, model="judge-7b")


def failed(number: int, error: str) -> Outcome:
    return Outcome(address(number), "failed", "raw", error, 6)


def test_an_answer_comes_back_whole_and_a_failure_never_replaces_it(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "a" / "cache.sqlite")
    cache.put([failed(1, "first"), done(2)])
    assert cache.answered([address(1), address(2), address(3)]) == {address(2)}
    cache.put([failed(1, "second"), failed(2, "late")])
    found = cache.get([address(1), address(2), address(3)])
    assert found[address(1)].error == "second"
    assert found[address(1)].reply == "raw"
    assert vars(found[address(2)]) == {
        "reply": "{}",
        "attempts": 2,
        "latency_ms": 12.5,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "cost": 0.25,
        "error": None,
        "model": "judge-7b",
    }
    cache.put([done(1)])
    assert cache.answered([address(1)]) == {address(1)}
    assert address(3) not in found
    assert cache.get([address(1)])[address(1)].attempts == 6 + 6 + 2, "what failed before stays counted"
    cache.close()


EARLIER = "reply TEXT, attempts, latency_ms, prompt_tokens, completion_tokens, cost, error TEXT"


def test_a_file_of_an_earlier_version_keeps_its_answers_and_its_zeros_are_unknown(tmp_path: Path) -> None:
    path, said = tmp_path / "cache.sqlite", list[str]()
    with sqlite3.connect(path) as earlier:
        earlier.execute(f"CREATE TABLE answers (address BLOB PRIMARY KEY, {EARLIER}) WITHOUT ROWID")
        rows = [(address(1), "{}", 1, 9.0, 0, 0, 0.0, None), (address(2), "{}", 1, 9.0, 100, 10, 0.25, None)]
        earlier.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    earlier.close()
    cache = ReplyCache(path, said.append)
    found = cache.get([address(1), address(2)])
    cache.put([done(3)])
    cache.close()
    assert said == []
    assert (found[address(1)].prompt_tokens, found[address(1)].completion_tokens, found[address(1)].cost) == (None, None, None)
    assert (found[address(2)].prompt_tokens, found[address(2)].cost) == (100, 0.25)
    assert found[address(2)].model is None


def test_the_sum_over_replies_is_unknown_where_one_was_not_counted(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "cache.sqlite")
    uncounted = Outcome(address(1), "failed", "raw", "unusable", 1, 9.0)
    never_came = Outcome(address(2), "failed", None, "passing: HTTP 500", 3)
    cache.put([uncounted, never_came])
    cache.put([done(1), done(2)])
    found = cache.get([address(1), address(2)])
    cache.close()
    assert (found[address(1)].prompt_tokens, found[address(1)].cost) == (None, None)
    assert (found[address(2)].prompt_tokens, found[address(2)].cost) == (100, 0.25), "no reply, nothing to count"


def test_thousands_of_addresses_are_found_in_one_question(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "cache.sqlite")
    cache.put([done(number) for number in range(0, 3000, 2)])
    assert cache.answered([address(number) for number in range(3000)]) == {address(number) for number in range(0, 3000, 2)}
    cache.close()


@pytest.mark.parametrize("damage", ["no database", "torn pages", "cut short"])
def test_a_damaged_file_is_set_aside_by_name_and_work_goes_on(tmp_path: Path, damage: str) -> None:
    path, said = tmp_path / "cache.sqlite", list[str]()
    cache = ReplyCache(path)
    cache.put([done(number, "x" * 2000) for number in range(500)])
    cache.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "no database":
            file.write(b"this is no database" * 100)
        elif damage == "torn pages":
            file.seek(4096)
            file.write(os.urandom(size - 4096))
        else:
            file.truncate(size // 3)
    cache = ReplyCache(path, said.append)
    cache.answered([address(number) for number in range(500)])
    cache.get([address(number) for number in range(500)])
    cache.put([done(number) for number in range(500)])
    assert len(cache.answered([address(number) for number in range(500)])) == 500
    cache.close()
    aside = list(tmp_path.glob("cache.sqlite.damaged-*"))
    assert len(aside) == len(said) == 1
    assert aside[0].name in said[0]


def test_a_file_that_cannot_be_used_is_an_error_and_not_damage(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").mkdir()
    with pytest.raises(JudgeError, match="cannot be used"):
        ReplyCache(tmp_path / "cache.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE answers (something)")
    other.close()
    said = list[str]()
    ReplyCache(tmp_path / "other.sqlite", said.append).close()
    assert "set aside" in said[0]


def write_some(path: Path, start: int) -> None:
    cache = ReplyCache(path)
    for number in range(start, start + 50):
        cache.put([done(number)])
    cache.close()


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_some, args=[path, start]) for start in (0, 25)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    cache = ReplyCache(path)
    assert len(cache.answered([address(number) for number in range(100)])) == 75
    cache.close()


def test_a_flipped_bit_of_a_row_is_noticed_and_the_answer_is_asked_for_again(tmp_path: Path) -> None:
    path, said = tmp_path / "cache.sqlite", list[str]()
    cache = ReplyCache(path)
    cache.put([done(number, f'{{"compliance": 1, "number": {number}}}') for number in range(3)])
    cache.close()
    data = path.read_bytes()
    assert data.count(b'"compliance": 1, "number": 1') == 1
    path.write_bytes(data.replace(b'"compliance": 1, "number": 1', b'"compliance": 0, "number": 1'))
    cache = ReplyCache(path, said.append)
    assert set(cache.get([address(number) for number in range(3)])) == {address(0), address(2)}
    assert cache.answered([address(1)]) == set()
    cache.close()
    assert "1 answers of cache.sqlite are damaged and forgotten" in said[0]


@pytest.mark.slow
def test_four_hundred_damages_change_no_answer_in_silence(tmp_path: Path) -> None:
    path, rng = tmp_path / "cache.sqlite", random.Random(5)
    cache = ReplyCache(path)
    addresses = [address(number) for number in range(200)]
    cache.put([done(number, f'{{"compliance": 0.5, "coherence": 1, "reason": "{number}"}}') for number in range(200)])
    whole = cache.get(addresses)
    cache.close()
    data, counts = path.read_bytes(), Counter[str]()
    for number in range(400):
        damaged, place = bytearray(data), rng.randrange(len(data))
        size = rng.choice([1, 1, 16, 512])
        damaged[place : place + size] = bytes(byte ^ rng.randrange(1, 256) for byte in damaged[place : place + size])
        file, said = tmp_path / f"{number}.sqlite", list[str]()
        file.write_bytes(damaged)
        try:
            other = ReplyCache(file, said.append)
            found = other.get(addresses)
            other.close()
        except JudgeError:
            counts["refused"] += 1
            continue
        changed = [key for key, stored in found.items() if stored != whole[key]]
        counts["changed"] += bool(changed)
        counts["told"] += bool(said)
        counts["lost in silence"] += not said and len(found) < len(whole)
    print(dict(counts))
    assert counts["changed"] == 0
