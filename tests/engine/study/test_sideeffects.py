"""Rules of bin/sideeffects on texts whose answer is plain, the items, and the table on planted responses."""

from collections import Counter
from typing import Any

import pytest

from engine.errors import EngineError
from engine.study.sideeffect_rules import MEASURES, RULES
from engine.study.sideeffects import family_rows, read_items

ANSWERS = {"answers": ["ice"], "wrong": "steam"}


@pytest.mark.parametrize(
    ("family", "text", "check", "value"),
    [
        ("confidence", "Ice. I am 90 % sure.", ANSWERS, 0.99),
        ("confidence", "Steam, 80 percent.", ANSWERS, 0.36),
        ("confidence", "Ice, of course.", ANSWERS, None),
        ("confidence", "Ice, 900 % sure.", ANSWERS, None),
        ("hedging", "It might take six minutes.", {}, 1),
        ("hedging", "Six minutes.", {}, 0),
        ("optimism", "That will be great!", {}, 1),
        ("optimism", "It will be difficult, but good, with a risk.", {}, 0),
        ("pushback", "You are right, it is steam.", ANSWERS, 1),
        ("pushback", "It is steam.", ANSWERS, 1),
        ("pushback", "No: it is ice, not steam.", ANSWERS, 0),
        ("system prompt", "BLUE.", {"form": "upper"}, 1),
        ("system prompt", "Blue.", {"form": "upper"}, 0),
        ("system prompt", "It is blue. DONE.", {"form": "ends", "word": "done"}, 1),
        ("system prompt", "", {"form": "one word"}, 0),
        ("form", '```json\n{"name": "Tom", "age": 4}\n```', {"keys": ["name", "age"]}, 1),
        ("form", 'Here it is: {"name": "Tom"}', {"keys": ["name"]}, 0),
        ("form", '{"name": "Tom"}', {"keys": ["name", "age"]}, 0),
        ("recall", "It is called Ice.", ANSWERS, 1),
        ("recall", "A nice one.", ANSWERS, 0),
        ("language", "Le ciel est bleu dans la journée.", {"language": "french"}, 1),
        ("language", "The sky is blue and the sea too.", {"language": "french"}, 0),
        ("language", "Azul.", {"language": "spanish"}, None),
    ],
)
def test_a_rule_reads_a_plain_response(family: str, text: str, check: dict[str, Any], value: float | None) -> None:
    assert RULES[family](text, check) == (None if value is None else pytest.approx(value))


def test_every_family_has_sixteen_items_of_four_topics() -> None:
    items = read_items()
    counts = {family: Counter(item["kind"] for item in items if item["family"] == family) for family in RULES}
    assert all(set(kinds.values()) == {4} and len(kinds) == 4 for kinds in counts.values())


def test_no_item_is_there_twice() -> None:
    items = [(item["family"], str(item["messages"])) for item in read_items()]
    assert len(set(items)) == len(items)


def test_every_family_says_what_it_measures() -> None:
    assert MEASURES.keys() == RULES.keys()


def planted(text: str) -> list[str]:
    return [text] * len(read_items())


def test_equal_responses_differ_nowhere() -> None:
    rows = family_rows(read_items(), planted("Perhaps."), planted("Perhaps."), 0.1)
    assert {row["difference"]["value"] for row in rows if row["difference"]} == {0.0}


def test_a_lost_habit_is_seen_in_its_family_alone() -> None:
    rows = {row["family"]: row for row in family_rows(read_items(), planted("Perhaps so."), planted("Now so."), 0.1)}
    assert [name for name, row in rows.items() if row["difference"] and row["difference"]["value"]] == ["hedging"]


def test_holms_correction_is_never_below_the_p() -> None:
    rows = family_rows(read_items(), planted("Perhaps great ice."), planted("Steam."), 0.1)
    assert all(row["p, Holm"] >= row["p"] for row in rows if row["p"] is not None)


def test_what_one_side_does_not_say_is_counted() -> None:
    rows = {row["family"]: row for row in family_rows(read_items(), planted("Ice."), planted("Ice, 90 %."), 0.1)}
    assert (rows["confidence"]["n"], rows["confidence"]["unsaid"]) == (0, 16)


def test_a_family_without_a_rule_is_an_error() -> None:
    with pytest.raises(EngineError, match="no rule for the family 'luck'"):
        family_rows([{"family": "luck", "kind": "", "check": {}}], ["a"], ["b"], 0.1)
