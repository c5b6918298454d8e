"""bin/ablate in the engine, all settings as one batch: its rows are those of hooks, on a tiny float32 Llama."""

import json

import pytest
import torch

from engine import config_for
from engine.configs.schema import RunConfig
from engine.environment import set_environment
from engine.runs.schemas import Row
from engine.study.jobs import ablate
from tests.tiny import save_tiny, save_tokenizer

pytestmark = [pytest.mark.engine, pytest.mark.slow]
OPTIONS = {
    **{"alphas": (0.5, 1.0), "sites": ("inputs", "writes"), "added": (1.0,)},
    **{"num_prompts": 3, "max_tokens": 6, "controls": True},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A tiny model with a window for its prompts; pairs and requests are harmless."""
    set_environment()
    folder = tmp_path_factory.mktemp("ablated")
    sizes = {"max_position_embeddings": 256, "vocab_size": 128}
    save_tokenizer(save_tiny("llama served", folder / "model", dtype=torch.float32, sizes=sizes))
    for name, count in (("pairs", 8), ("held_out", 4)):
        pairs = [[f"Is {name} {number} on?", f"Name {name} {number}."] for number in range(count)]
        (folder / f"{name}.json").write_text(json.dumps(pairs))
    for name in ("requests", "answerable"):
        (folder / f"{name}.json").write_text(json.dumps([f"{name} {number}?" for number in range(3)]))
    files = {name: folder / f"{name}.json" for name in ("requests", "answerable")}
    overrides = {
        "data.selection_pairs": str(folder / "held_out.json"),
        "model.dtype": "float32",
        "vllm.kv_cache_memory_bytes": 2**26,
    }
    return config_for(folder / "model", folder / "pairs.json", layers=[1], **files, overrides=overrides)


@pytest.fixture(scope="module")
def rows(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    path = tmp_path_factory.mktemp("run")
    return {by: ablate(config, path / by, **OPTIONS, by=by)["rows"] for by in ("hooks", "engine")}


def test_every_row_says_its_form(rows: dict[str, list[Row]]) -> None:
    assert {by: {row["form"] for row in found} for by, found in rows.items()} == {"hooks": {"hooks"}, "engine": {"runtime"}}


def test_rows_are_those_of_hooks(rows: dict[str, list[Row]]) -> None:
    by_engine, by_hooks = ([{**row, "form": ""} for row in rows[by]] for by in ("engine", "hooks"))
    assert len(by_hooks) == 2 + 3 * 2 * 2 + 3
    assert by_engine == by_hooks
