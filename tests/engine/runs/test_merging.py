"""The streaming merge against pandas, its memory for N and 4N rows, and reading by variant."""

import random
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from engine.runs import merging
from engine.runs import parquet as store
from engine.runs.parquet import ShardedTable
from engine.runs.schemas import ROLLOUT_SCHEMA

ORDER = {"prompt_id": None, "variant_hash": None}


def rows(variant: int, prompts: int, text: str = "a response ") -> list[dict[str, object]]:
    constant = dict.fromkeys(ROLLOUT_SCHEMA.names) | {
        "variant": f"v{variant}",
        "variant_hash": f"h{variant:04d}",
        "seed": variant,
    }
    return [
        constant
        | {"prompt_id": f"p{number:04d}", "response": f"{text}{variant}-{number}", "response_token_ids": [variant, number]}
        for number in range(prompts)
    ]


def filled(path: Path, variants: int, prompts: int, text: str = "a response ") -> ShardedTable:
    table = ShardedTable(path, ROLLOUT_SCHEMA)
    for variant in random.Random(0).sample(range(variants), variants):
        table.extend(rows(variant, prompts, text))
    return table


def plain(table: ShardedTable) -> pd.DataFrame:
    """The reference: every shard in memory, the last of each key."""
    frames = pd.concat([pd.read_parquet(file) for file in table.files()], ignore_index=True)
    return frames.drop_duplicates(["variant_hash", "prompt_id"], keep="last")


def test_a_merge_in_parts_is_the_sort_of_all_rows_with_the_last_of_each_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "PART_ROWS", 100)  # 13 parts
    table = filled(tmp_path / "t.parquet", 40, 33)
    table.extend(rows(7, 33, "made again "))
    expected = plain(table).sort_values(["prompt_id", "variant_hash"]).reset_index(drop=True)
    table.merge(ORDER)
    found = pd.read_parquet(table.path)
    assert len(found) == 40 * 33 and found.response.str.startswith("made again").sum() == 33
    pd.testing.assert_frame_equal(found, expected)
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
    table.extend(rows(3, 5, "later "))
    expected = plain(table).sort_values(["prompt_id", "variant_hash"]).reset_index(drop=True)
    table.merge(ORDER)
    pd.testing.assert_frame_equal(pd.read_parquet(table.path), expected)


def test_listed_values_give_the_order_and_leave_the_others_out(tmp_path: Path) -> None:
    table = filled(tmp_path / "t.parquet", 4, 3)
    table.merge({"variant_hash": ["h0002", "h0000"], "prompt_id": ["p0001", "p0000"]})
    found = [(row["variant_hash"], row["prompt_id"]) for row in store.read_rows(table.path)]
    assert found == [("h0002", "p0001"), ("h0002", "p0000"), ("h0000", "p0001"), ("h0000", "p0000")]


def test_batches_and_where_give_every_row_once_and_the_latest(tmp_path: Path) -> None:
    table = filled(tmp_path / "t.parquet", 20, 30)
    table.merge(ORDER)
    table.extend(rows(7, 30, "made again "))
    expected = plain(table).set_index(["variant_hash", "prompt_id"]).response.to_dict()
    seen = [row for batch in table.batches(["variant_hash", "prompt_id", "response"]) for row in batch.to_pylist()]
    assert len(seen) == len(expected) and {(r["variant_hash"], r["prompt_id"]): r["response"] for r in seen} == expected
    some = table.where("variant_hash", ["h0007", "h0003"], ["response"]).to_pylist()
    assert {(r["variant_hash"], r["prompt_id"]): r["response"] for r in some} == {
        key: text for key, text in expected.items() if key[0] in ("h0007", "h0003")
    }
    assert len(some) == 60


def peak_bytes(path: Path, variants: int) -> int:
    """Arrow's largest allocation while a table of responses of 2 kB is merged and read."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    default = pa.default_memory_pool()
    table = filled(path, variants, 64, "x" * 2000)
    try:
        pa.set_memory_pool(pool)
        table.merge(ORDER)
        assert sum(len(batch) for batch in table.batches()) == 64 * variants
    finally:
        pa.set_memory_pool(default)
    return int(pool.max_memory())


def test_memory_of_a_merge_does_not_grow_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "PART_ROWS", 512)
    few, many = peak_bytes(tmp_path / "few.parquet", 32), peak_bytes(tmp_path / "many.parquet", 128)
    print(f"{few / 1e6:.1f} MB for 2,048 rows of 2 kB, {many / 1e6:.1f} MB for 8,192")
    assert many < 1.5 * few
