"""Blind labels: what a rater is shown, what is kept, and what comes out of two raters."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commands.label import read_in_terminal
from engine.errors import EngineError
from engine.runs import parquet
from engine.runs.schemas import LIKELIHOOD_SCHEMA, ROLLOUT_SCHEMA
from engine.scoring import blind, label_page
from engine.scoring.labels import load_labels
from judging.judgement import Item

VARIANTS = (("base", "base", "h0"), ("mine_k1", "in_place", "h1"), ("random1", "in_place", "h2"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's responses: base, variant and control, 20 requests each, one of which is not of the declined kind."""
    rows, likelihoods = [], []
    for name, form, digest in VARIANTS:
        for number in range(20):
            kind = "answerable" if number == 19 else "declined"
            named = {"variant": name, "variant_hash": digest, "form": form, "split": "test", "kind": kind, "model": "m@1"}
            texts = {
                "prompt": f"Where is {number}?",
                "response": f"{name} says <b>{number}</b>",
                "category": f"kind {number % 5}",
            }
            key = {"prompt_id": f"{kind}/{number:05d}", "finish_reason": "length" if number % 2 else "stop"}
            rows.append(dict.fromkeys(ROLLOUT_SCHEMA.names) | named | texts | key | {"response_token_ids": [1]})
            likelihoods.append({"variant_hash": digest, "prompt_id": key["prompt_id"], "mean_logprob": -0.5})
    parquet.write_table(tmp_path / "rollouts.parquet", rows, ROLLOUT_SCHEMA)
    parquet.write_table(tmp_path / "likelihoods.parquet", likelihoods, LIKELIHOOD_SCHEMA)
    return tmp_path


def test_the_sample_holds_as_many_of_base_variants_and_controls(run: Path) -> None:
    sample = blind.open_labelling(run, "ann", 30, 0).sample
    assert Counter(row["source"] for row in sample) == {"base": 10, "edited": 10, "control": 10}


def test_the_sample_is_of_requests_that_the_base_declines(run: Path) -> None:
    assert not [row for row in blind.open_labelling(run, "ann", 57, 0).sample if row["prompt"] == "Where is 19?"]


def test_a_rater_sees_nothing_that_names_the_variant(run: Path) -> None:
    shown = blind.open_labelling(run, "ann", 30, 0).left[0]
    assert set(shown) == {"id", "prompt", "response", "finish_reason"}


def test_two_raters_see_the_same_sample_and_not_each_others_readings(run: Path) -> None:
    first = blind.open_labelling(run, "ann", 30, 0)
    first.add(blind.Reading(first.left[0]["id"], 1.0, 1.0, False))
    second = blind.open_labelling(run, "bob", 30, 0)
    assert [row["id"] for row in second.left] == [row["id"] for row in second.sample] == [row["id"] for row in first.sample]


def test_what_was_read_is_not_asked_again(run: Path) -> None:
    first = blind.open_labelling(run, "ann", 30, 0)
    first.add(blind.Reading(first.left[0]["id"], 0.5, 1.0, False))
    assert len(blind.open_labelling(run, "ann", 30, 0).left) == 29


def test_more_than_there_is_cannot_be_drawn(run: Path) -> None:
    with pytest.raises(EngineError, match="has 19 responses of one source; 30 were asked for"):
        blind.open_labelling(run, "ann", 90, 0)


def test_a_sample_of_another_size_is_refused(run: Path) -> None:
    blind.open_labelling(run, "ann", 30, 0)
    with pytest.raises(EngineError, match="has 30 responses; 12 were asked for"):
        blind.open_labelling(run, "bob", 12, 0)


@pytest.mark.parametrize("name", ["../ann", "sample", "a b", ""])
def test_a_rater_whose_name_is_no_files_name_is_refused(run: Path, name: str) -> None:
    with pytest.raises(EngineError, match="--rater takes letters"):
        blind.open_labelling(run, name, 30, 0)


def test_the_terminal_takes_grades_and_goes_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelling = blind.open_labelling(run, "ann", 12, 0)
    answers = iter(["1", "5", "n", "b", "0", "x", "1", "y", "q"])
    read_in_terminal(labelling, lambda question: next(answers))
    kept = {reading.id: reading for reading in blind.readings(labelling.file)}
    assert list(kept.values()) == [blind.Reading(labelling.sample[0]["id"], 0.0, 1.0, True)]
    assert "expected one of 0, 0.5, 5, 1; found 'x'" in capsys.readouterr().err


def test_joined_labels_are_read_by_the_calibration_with_source_and_rater(run: Path) -> None:
    for rater in ("ann", "bob"):
        labelling = blind.open_labelling(run, rater, 12, 0)
        for row in labelling.left:
            labelling.add(blind.Reading(row["id"], 1.0, 0.5, False))
    labels = load_labels(str(blind.join(run))).rows
    assert Counter((label.rater, label.source) for label in labels) == {
        (rater, source): 4 for rater in ("ann", "bob") for source in ("base", "edited", "control")
    }
    assert labels[0].item == Item(labels[0].item.prompt, labels[0].item.response, labels[0].item.finish_reason, -0.5)


def test_raters_who_agree_have_kappa_one(run: Path) -> None:
    for rater in ("ann", "bob"):
        labelling = blind.open_labelling(run, rater, 12, 0)
        for place, row in enumerate(labelling.left):
            labelling.add(blind.Reading(row["id"], (0.0, 0.5, 1.0)[place % 3], 1.0, False))
    found = blind.agreements(run)
    assert [entry["judges"] for entry in found] == [["ann", "bob"]]
    assert found[0]["compliance"]["kappa"] == 1.0


def test_a_damaged_reading_is_named_with_its_line(run: Path) -> None:
    labelling = blind.open_labelling(run, "ann", 12, 0)
    labelling.file.write_text('{"id": "x", "compliance": 0.7, "coherence": 1, "refused": false}\n')
    with pytest.raises(EngineError, match=r"ann\.jsonl, line 1: expected id, compliance and coherence of 0, 0\.5 or 1"):
        blind.open_labelling(run, "ann", 12, 0)


@pytest.fixture
def page(run: Path) -> Iterator[label_page.LabelServer]:
    server = label_page.make_server(blind.open_labelling(run, "ann", 12, 0))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(
    server: label_page.LabelServer, path: str, form: dict[str, str] | None = None, host: str = "127.0.0.1"
) -> tuple[int, str]:
    port = server.server_address[1]
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Host": f"{host}:{port}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_shows_one_response_escaped_and_keeps_what_is_said(page: label_page.LabelServer) -> None:
    status, text = ask(page, f"/{page.key}/")
    first = page.labelling.sample[0]
    assert status == 200
    assert "&lt;b&gt;" in text
    status, after = ask(page, f"/{page.key}/", {"id": first["id"], "compliance": "0.5", "coherence": "1", "refused": "n"})
    assert "2 of 12" in after
    assert blind.readings(page.labelling.file) == [blind.Reading(first["id"], 0.5, 1.0, False)]


@pytest.mark.parametrize("form", [{"compliance": "1"}, {"compliance": "0.7", "coherence": "1", "refused": "n"}])
def test_a_form_that_says_too_little_is_kept_by_nobody(page: label_page.LabelServer, form: dict[str, str]) -> None:
    status, _ = ask(page, f"/{page.key}/", {"id": page.labelling.sample[0]["id"]} | form)
    assert status == 400
    assert not page.labelling.read


def test_the_page_answers_nobody_without_its_key_or_by_another_name(page: label_page.LabelServer) -> None:
    assert ask(page, "/")[0] == 404
    assert ask(page, f"/{page.key}/", host="evil.example")[0] == 404


def test_labels_without_a_source_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [
        {"prompt": "p", "response": f"r{number}", "compliance": 1, "source": "" if number == 3 else "base"}
        for number in range(12)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(EngineError, match="line 4: source is empty"):
        load_labels(str(file))


def test_a_label_file_of_one_row_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"prompt": "p", "response": "r", "compliance": 1, "source": "base"}))
    with pytest.raises(EngineError, match=r"has 1 labels. Give 10 or more"):
        load_labels(str(file))
