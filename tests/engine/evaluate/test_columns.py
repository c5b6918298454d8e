"""Responses as columns against the row-by-row way, and keyed values against a plain dictionary."""

import random

import pyarrow as pa

from engine.evaluate.columns import generations_of, request_batch, response_batch, rollout_table, thought_batch
from engine.evaluate.keyed import Keyed
from engine.inference.replica import Generation
from engine.rollout.stages import response_columns
from engine.runs.requests import Request
from engine.runs.schemas import ROLLOUT_SCHEMA

REQUESTS = [
    Request(f"declined/{number:05d}", "test", "declined", f"kind {number % 3}", f"Where is it, {number}?") for number in range(40)
]
PROMPTS = [tuple(range(number + 5)) for number in range(40)]
GENERATIONS = [Generation(number, f"On table {number}. \u2028\x00", list(range(number)), "stop") for number in range(40)]
CONSTANT = {
    "variant": "v",
    "variant_hash": "h",
    "sampling": "{}",
    "seed": 7,
    "engine": "e",
    "dtype": "float32",
    "model": "m",
    "template": "own",
}
CONSTANT["form"] = "in_place"


def test_a_task_stored_as_columns_has_the_rows_that_it_has_one_by_one() -> None:
    finished = random.Random(0).sample(GENERATIONS, 40)  # engines finish in any order
    answered = response_batch(finished)
    found = rollout_table(CONSTANT, request_batch(REQUESTS, PROMPTS), answered, thought_batch(None, PROMPTS, answered))
    rows = [CONSTANT | response_columns(*one) for one in zip(REQUESTS, PROMPTS, GENERATIONS, strict=True)]
    assert found.equals(pa.Table.from_pylist(rows, schema=ROLLOUT_SCHEMA))


def test_generations_come_back_from_their_columns() -> None:
    assert generations_of(response_batch(GENERATIONS[::-1])) == GENERATIONS and generations_of(response_batch([])) == []


def test_keyed_values_are_those_of_a_dictionary() -> None:
    plain, keyed, rng = {}, Keyed[int](), random.Random(0)
    for value in range(300):
        key = (f"v{rng.randrange(7)}", f"p{rng.randrange(30)}")
        plain[key] = keyed[key] = value
    assert dict(keyed) == plain and keyed == plain and len(keyed) == len(plain)
    assert list(keyed.by_prompt()) == sorted(plain, key=lambda key: (key[1], key[0]))
    assert ("v1", "nowhere") not in keyed and ("nobody", "p1") not in keyed and keyed.get(("nobody", "p1")) is None
