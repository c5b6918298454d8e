"""Prompt files: the forms that are read, the errors of those that are not, and the embedded data's promises."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extraction.errors import ExtractionError
from extraction.prompts import EMBEDDED_DIR, Pair, Prompt, load_pairs, load_prompts, take

PAIRS = [Pair("Call my aunt.", "What is an aunt?", "phone"), Pair("Is it raining here?", "Why does it rain?", "weather")]


def write_pairs(directory: Path, suffix: str) -> Path:
    path = directory / f"pairs{suffix}"
    rows = [vars(pair) for pair in PAIRS]
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif suffix == ".csv":
        lines = [f'"{row["declined"]}","{row["answered"]}","{row["category"]}"' for row in rows]
        path.write_text("declined,answered,category\n" + "\n".join(lines))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_pairs_with_named_columns_read_alike(tmp_path: Path, suffix: str) -> None:
    assert load_pairs(write_pairs(tmp_path, suffix)) == PAIRS


def test_the_studys_json_forms_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text(json.dumps([[pair.declined, pair.answered] for pair in PAIRS]))
    (tmp_path / "list.json").write_text(json.dumps(["one", "two"]))
    assert load_pairs(tmp_path / "pairs.json") == [Pair(pair.declined, pair.answered) for pair in PAIRS]
    assert load_prompts(tmp_path / "list.json") == [Prompt("one"), Prompt("two")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", '[["a", "b"], ["a"]]', "row 2: expected [declined, answered], found a list of 1"),
        ("p.json", '[["a", "b"], ["a", " "]]', "row 2: answered must be text that is not empty, found an empty string"),
        ("p.json", '[["a", 3]]', "row 1: answered must be text that is not empty, found int"),
        ("p.json", '["a"]', "row 1: expected columns such as declined and answered, found a string"),
        ("p.json", '{"a": 1}', "expected a JSON list at the top, found an object"),
        ("p.json", "[]", "holds no prompts"),
        ("p.json", "[", "not valid JSON"),
        ("p.jsonl", '{"declined": "a"}', "line 1: no column is known as declined/answered; found declined"),
        ("p.csv", "bad,good\na,b", "line 2: no column is known as declined/answered; found bad, good"),
        ("p.txt", "a", "line 1: expected columns such as declined and answered, found a string"),
        ("p.xlsx", "a", "ends in .txt, .json, .jsonl, .csv, .tsv, .parquet, or a text form with .gz; found '.xlsx'"),
        ("p.parquet", "no parquet", "not a readable Parquet file"),
    ],
)
def test_a_bad_pairs_file_is_named_with_its_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ExtractionError) as caught:
        load_pairs(tmp_path / name)
    assert message in str(caught.value)


def test_spreadsheets_and_odd_separators_are_read(tmp_path: Path) -> None:
    (tmp_path / "excel.csv").write_bytes("\ufeffdeclined,answered\nCall me.,What is a call?\n".encode())
    assert load_pairs(tmp_path / "excel.csv") == [Pair("Call me.", "What is a call?")]
    (tmp_path / "odd.jsonl").write_text('{"prompt": "one\u2028line"}\n', encoding="utf-8")
    assert load_prompts(tmp_path / "odd.jsonl") == [Prompt("one\u2028line")]
    (tmp_path / "long.csv").write_text("prompt\n" + "a" * 200_000 + "\n")
    assert len(load_prompts(tmp_path / "long.csv")[0].text) == 200_000


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", "prompt\ncaf\u00e9\n".encode("latin-1"), "is not UTF-8"),
        ("p.json", b'["\\ud800"]', "row 1: prompt holds half a surrogate pair"),
    ],
)
def test_text_that_is_no_text_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ExtractionError, match=message):
        load_prompts(tmp_path / name)


def test_missing_files_and_unknown_embedded_names_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="does not exist"):
        load_pairs(tmp_path / "nowhere.json")
    with pytest.raises(ExtractionError, match="embedded:train_pairs"):
        load_pairs("embedded:harmful")
    with pytest.raises(ExtractionError, match=r"~nosuchuser/p.json does not exist"):
        load_pairs("~nosuchuser/p.json")


def test_asking_for_more_prompts_than_there_are_is_an_error() -> None:
    with pytest.raises(ExtractionError, match="holds 2 prompts; 3 were asked for"):
        take(PAIRS, 3, "file")
    assert take(PAIRS, None, "file") == PAIRS


def rows_of(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (EMBEDDED_DIR / f"{name}.jsonl").read_text().splitlines()]


EMBEDDED = {"train_pairs": 256, "selection_pairs": 128, "test_requests": 500, "test_answerable": 200}


def test_embedded_files_have_their_sizes_and_all_prompts_differ() -> None:
    texts = []
    for name, size in EMBEDDED.items():
        rows = rows_of(name)
        assert len(rows) == size
        texts += [row[column].casefold() for row in rows for column in ("declined", "answered", "prompt") if column in row]
    assert len(set(texts)) == len(texts) == 2 * (256 + 128) + 500 + 200


def test_no_template_is_shared_between_splits_and_there_are_forty_kinds() -> None:
    templates = [{row["template"] for row in rows_of(name)} for name in EMBEDDED]
    assert sum(map(len, templates)) == len(set().union(*templates))
    assert len({row["category"] for row in rows_of("test_requests")}) >= 40


def test_the_data_files_are_what_the_templates_give(tmp_path: Path) -> None:
    for name in ("templates.toml", "build.py"):
        shutil.copy(EMBEDDED_DIR / name, tmp_path)
    subprocess.run([sys.executable, tmp_path / "build.py"], check=True)
    for name in EMBEDDED:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (EMBEDDED_DIR / f"{name}.jsonl").read_bytes()
