"""The base's view of a response: what its numbers are, and that the shipped labels have one each."""

import json
from pathlib import Path

import pytest

from judging.features import features
from judging.offline import OfflineJudge
from judging.view import VIEWED_TOKENS, BaseView, kept_views, text_key

DATA = Path(__file__).parents[2] / "judging" / "data"
TEXT = ("Can you see my kitchen?", "It has a blue door.")


def test_information_is_what_the_request_adds() -> None:
    assert BaseView(-0.5, -1.75, 0.1).information == 1.25


@pytest.mark.parametrize("name", ["labelled", "blind", "readings"])
def test_every_shipped_label_with_a_text_has_one(name: str) -> None:
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").open(encoding="utf-8")]
    assert [
        row["id"] for row in rows if row["response"].strip() and text_key(row["prompt"], row["response"]) not in kept_views()
    ] == []


def test_shares_are_shares() -> None:
    assert all(0 < view.refusing <= 1 for view in kept_views().values())


def test_responses_are_likelier_behind_their_own_request_than_behind_another() -> None:
    informed = [view.information > 0 for view in kept_views().values()]
    assert sum(informed) / len(informed) > 0.9


def test_a_view_adds_its_features_and_changes_no_other() -> None:
    plain, viewed = (
        features(*TEXT, OfflineJudge().score(*TEXT), cut=False, view=view) for view in (None, BaseView(-9.0, -9.0, 0.2))
    )
    assert {name: value for name, value in viewed.items() if name not in plain} == {
        "base: likelihood": -5.0,
        "base: information": 0.0,
        "base: would refuse": 0.2,
    }


def test_what_is_read_again_is_short() -> None:
    assert VIEWED_TOKENS <= 16
