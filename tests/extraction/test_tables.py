"""Table files as people have them: every form, the field's column names, chat messages, and what is refused by its line."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extraction.errors import ExtractionError
from extraction.prompts import Pair, Prompt, load_pairs, load_prompts
from extraction.tables import load_rows

PAIRS = [Pair("Call my aunt, please.", "What is an aunt?"), Pair('Say "it rains".', "Why\ndoes it rain?")]
REQUESTS = [Prompt("Call my aunt, please."), Prompt("Is it raining?")]


def save(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return path


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the form that the file's name asks for."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        return save(path, "\n".join(json.dumps(row) for row in rows))
    with (path.parent / "plain").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    return save(path, (path.parent / "plain").read_bytes())


@pytest.mark.parametrize("name", ["p.tsv", "p.csv.gz", "p.tsv.gz", "p.jsonl.gz", "P.CSV", "P.JSONL.GZ", "p.v2.Tsv"])
def test_a_form_is_told_by_the_ending_in_any_case_and_zipped(tmp_path: Path, name: str) -> None:
    rows = [{"declined": pair.declined, "answered": pair.answered} for pair in PAIRS]
    assert load_pairs(written(tmp_path / name, rows)) == PAIRS


@pytest.mark.parametrize("name", ["p.txt", "P.TXT", "p.txt.gz"])
def test_a_text_file_holds_a_prompt_a_line(tmp_path: Path, name: str) -> None:
    text = "\ufeffCall my aunt, please.\r\n\r\nIs it raining?\r\n"
    assert load_prompts(save(tmp_path / name, text)) == REQUESTS


@pytest.mark.parametrize("names", [("declined", "answered"), ("harmful", "harmless"), ("harmful", "safe"), ("Harmful", " Safe")])
def test_the_studys_names_of_pairs_are_known(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [dict(zip(names, (pair.declined, pair.answered), strict=True)) for pair in PAIRS]
    assert load_pairs(written(tmp_path / "p.csv", rows)) == PAIRS


@pytest.mark.parametrize("name", ["prompt", "instruction", "goal", "Goal", "Behavior", "question", "text", "forbidden_prompt"])
def test_the_fields_names_of_requests_are_known(tmp_path: Path, name: str) -> None:
    rows = [{"number": 1, name: prompt.text, "target": "Sure"} for prompt in REQUESTS]
    assert load_prompts(written(tmp_path / "p.csv", rows)) == REQUESTS


def test_columns_that_are_asked_for_are_read_whatever_else_is_there(tmp_path: Path) -> None:
    rows = [{"bad": pair.declined, "good": pair.answered, "harmful": "x", "harmless": "y"} for pair in PAIRS]
    assert load_pairs(written(tmp_path / "p.csv", rows), ["bad", "good"]) == PAIRS
    assert load_prompts(tmp_path / "p.csv", "Bad") == [Prompt(pair.declined) for pair in PAIRS]
    assert len(load_pairs("embedded:train_pairs", ["bad", "good"])) == 256


@pytest.mark.parametrize(
    "form", [{"messages": [{"role": "user", "content": "Hi?"}]}, {"prompt": [{"role": "user", "content": "Hi?"}]}]
)
def test_a_user_turn_of_chat_messages_is_a_prompt(tmp_path: Path, form: dict[str, Any]) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(form))
    (tmp_path / "list.json").write_text(json.dumps(list(form.values())))
    pq.write_table(pa.Table.from_pylist([form]), tmp_path / "p.parquet")
    found = [load_prompts(tmp_path / name) for name in ("p.jsonl", "list.json", "p.parquet")]
    assert found == [[Prompt("Hi?")]] * 3


def test_jsonl_in_a_json_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    assert load_prompts(tmp_path / "p.json") == [Prompt("one"), Prompt("two")]


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_a_missing_category_is_none(tmp_path: Path, missing: Any) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "one", "category": missing}))
    assert load_prompts(tmp_path / "p.jsonl") == [Prompt("one", "")]


def test_a_column_of_pandas_without_values_is_no_category(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["one"], "category": pa.array([float("nan")])}), tmp_path / "p.parquet")
    assert load_prompts(tmp_path / "p.parquet") == [Prompt("one", "")]


USER, BOT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "prompt\nfine\nTurn it on, please\n", "line 3: 2 cells, but the first line names 1 columns (prompt)"),
        ("p.csv", 'prompt\n"two\nlines"\na,b\n', "line 4: 2 cells"),
        ("p.csv", 'prompt\nfine\n"never closed\nmore\n', "line 3: not readable as CSV (unexpected end of data)"),
        ("p.csv", "prompt,prompt\na,b\n", "two columns are called prompt"),
        ("p.csv", "prompt,text\na,b\n", "line 2: prompt and text could both be meant. Name one with --columns NAME"),
        ("p.csv", "request;kind\na;b\n", "line 2: no column is known as prompt; found request;kind"),
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": ""}', "line 3: prompt must be text that is not empty, found an empty string"),
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1: not valid JSON (a key stands twice in one object)"),
        ("p.jsonl", json.dumps({"messages": [BOT]}), "line 1: messages: no turn is the user's, so nothing is asked"),
        ("p.jsonl", json.dumps({"messages": [1]}), "messages must be text or chat messages, found a list"),
        ("p.jsonl", json.dumps({"messages": [{"role": "user"}]}), "messages: turn 1 must have a role and a content"),
        ("p.jsonl", json.dumps({"prompt": "a", "category": ["b"]}), "category must be text, found a list"),
        ("p.json", "[" + "9" * 5000 + "]", "p.json: not valid JSON (Exceeds the limit"),
        ("p.json", "[" * 100_000, "p.json: nested too deeply"),
        ("p.json", '{"prompt": "a"}', "expected a JSON list at the top, found an object"),
        ("p.csv", "prompt\nhello\n".encode("utf-16-le"), "holds NUL characters, as UTF-16 read as UTF-8 does"),
        ("p.csv", "prompt\nhello\n".encode("utf-16"), "is not UTF-8"),
        ("p.csv", "", "holds no prompts"),
        ("p.parquet.gz", b"", "or a text form with .gz; found '.parquet'"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        load_prompts(save(tmp_path / name, content))
    assert message in str(caught.value)


def test_two_known_pairs_of_names_at_once_are_refused_naming_both(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="harmful/harmless and harmful/safe could both be meant"):
        load_pairs(save(tmp_path / "p.csv", "harmful,harmless,safe\na,b,c\n"))


def test_a_file_that_only_says_it_is_gzip_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.txt.gz").write_text("plain")
    with pytest.raises(ExtractionError, match="is not readable as gzip"):
        load_prompts(tmp_path / "p.txt.gz")


def test_a_folder_named_like_a_hive_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "split=test").mkdir()
    pq.write_table(pa.table({"prompt": ["one"]}), tmp_path / "split=test" / "p.parquet")
    assert load_rows(tmp_path / "split=test" / "p.parquet")[0].value == {"prompt": "one"}
