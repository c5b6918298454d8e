"""Sentences and tables on kinds and on the rank of the pairs."""

from engine.display.study_tables import pair_rank_table
from engine.display.study_words import kind_sentences, pair_rank_sentences, reading_sentences

FOUND = {"answer": "more than one", "directions": 3, "mean_p": 0.001, "p": [0.005, 0.005, 0.4], "spread": [4.1, 3.0, 1.1]}
FOUND |= {"usual": 1.02, "reverse": 0}
KINDS = {"time": {"pairs": 5, "cosine": 0.3, "ceiling": 0.8, "expected": [0.8, 0.7, 0.9], "p": 0.002}}
KINDS |= {"mail": {"pairs": 4, "cosine": 0.7, "ceiling": 0.8, "expected": [0.8, 0.7, 0.9], "p": 0.9}}
GEOMETRY = {
    "num_pairs": 60,
    "num_kinds": 7,
    "num_kinds_held_out": 9,
    "kinds_note": "Only 7 kinds of prompts.",
    "kinds": {"22": KINDS},
}


def test_several_directions_are_said_to_be_at_least_as_many() -> None:
    (line,) = pair_rank_sentences({"pair_rank": {"22": FOUND}})
    assert line.startswith("Is it one direction at layer 22, pair by pair? More than one: 3 were found, so at least as many")
    assert "spread 4.10 (usual 1.02)" in line and "with the sides exchanged 0 beside the mean" in line


def test_what_cannot_be_told_has_its_reason() -> None:
    content = FOUND | {"answer": "cannot tell", "reverse": 2}
    few = FOUND | {"answer": "cannot tell", "directions": 0, "p": [], "spread": []}
    first, second = pair_rank_sentences({"pair_rank": {"5": content, "6": few}})
    assert "2 were found beside it, and content alone can make as many" in first
    assert "too few pairs or kinds to say" in second


def test_the_table_ends_at_the_first_direction_that_fails() -> None:
    table = pair_rank_table({"pair_rank": {"22": FOUND}})
    assert [row[2] for row in table.rows] == ["2", "3", "4"]
    assert table.rows[-1][5] == "0.4000"


def test_few_kinds_have_a_warning_and_kinds_of_their_own_a_corrected_p() -> None:
    lines = kind_sentences(GEOMETRY)
    assert lines[0] == "Intervals are over kinds of prompts: 7 made directions, 9 are held out."
    assert lines[1] == "Only 7 kinds of prompts."
    assert lines[2].endswith("of 2, p corrected: time (cosine 0.30, p 0.0020).")
    alone = kind_sentences(GEOMETRY | {"num_pairs": 7, "kinds_note": None, "kinds": {"22": {}}})
    assert alone == ["Intervals are over pairs: no two that made directions are of one kind (the column category)."]


def test_auroc_within_kinds_stands_beside_the_pooled_one() -> None:
    def triple(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 60, "method": "percentile bootstrap over kinds"}

    part = {"auroc": [triple(0.5), triple(0.63)], "within_auroc": [triple(0.5), triple(0.52)], "within_kinds": 31}
    (line,) = reading_sentences({"positions": {"last": {"done": part}}, "kinds_note": None})
    assert line.endswith("AUROC 0.63 [0.53, 0.73]; within kinds (31 have both sides) 0.52 [0.42, 0.62]")
