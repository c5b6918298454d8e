"""Users' files, one whole specimen of each kind, and the project's own reader of it."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from editing.adapter import read_adapter, write_adapter
from editing.checkpoint import open_checkpoint
from editing.forensics import forensics_of
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.qwen1 import convert_config
from editing.reading import read_object
from editing.record import read_edit, read_record
from editing.replacement import replacement_of, values_of
from editing.writer import write_edited
from engine.checkpoints.verify import plan_of, verify_checkpoint
from engine.compare.published import FOLDER, read_table
from engine.configs.judges import load_judge
from engine.configs.load import load_config
from engine.exports.steering import read_gguf, read_layers, write_gguf, write_layers
from engine.runs import parquet_reader
from engine.runs.manifest import read_manifest
from engine.runs.session import Session
from engine.scoring.blind import COLUMNS, read_lines, readings
from engine.scoring.labels import load_labels
from extraction.directions import Directions, unit_directions
from extraction.files import load_directions, save_directions
from extraction.prompts import load_pairs, load_prompts
from tests.engine.report.made import make_run
from tests.tiny import save_tiny, save_tokenizer


@dataclass(frozen=True)
class Kind:
    """A kind of user file.

    file: below the specimens' folder. form: how it is mutated. read: the project's reader, given the folder.
    """

    name: str
    file: str
    form: str
    read: Callable[[Path], Any]


PAIRS = [{"declined": f"Call my aunt {number}.", "answered": f"What is aunt {number}?", "category": "c"} for number in range(4)]
LABELS = [
    {"prompt": f"p{number}", "response": "r", "compliance": 0.5, "coherence": 1, "refused": "no", "source": "base"}
    | {"mean_logprob": -0.5, "split": "heldout", "category": "c", "rater": "a", "finish_reason": "stop"}
    for number in range(12)
]
QWEN1 = {
    **{"architectures": ["QWenLMHeadModel"], "model_type": "qwen", "hidden_size": 48, "intermediate_size": 160},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": 12, "vocab_size": 600, "layer_norm_epsilon": 1e-6},
    **{"rotary_emb_base": 10000, "rotary_pct": 1.0, "seq_length": 128, "no_bias": True, "tie_word_embeddings": False},
}
VARIANT = """description = "a variant"
model.path = "m"
model.chat_template_kwargs = { enable_thinking = false }
[directions]
layers = [1, 2]
k = 1
position = "last"
[data]
train_pairs = "pairs.csv"
pair_columns = ["harmful", "safe"]
num_pairs = 4
[edit]
alpha = 0.5
alpha_by_layer = { 1 = 0.5 }
layers = "0-2"
[sampling]
max_tokens = 8
temperature = 0.0
[sweep]
alphas = [0.5, 1.0]
subspaces = ["top3", "1-2"]
[judge]
max_cost = 1.5
[vllm]
max_model_len = 128
"""
JUDGE = """description = "a judge"
rubric = "rubric.md"
[endpoint]
base_url = "https://api.example.com/v1"
model = "judge"
api_key_env = "A_KEY"
max_tokens = 64
timeout_s = 5.0
extra_body = { a = [1, { b = 2 }] }
[endpoint.prices.judge]
input = 0.5
output = 1.5
"""
EDIT = Edit(orthonormal_basis(torch.randn(2, 48, generator=torch.Generator().manual_seed(5))), 1.0)


def make_specimens(folder: Path) -> None:
    """One whole file of every kind."""
    _tables(folder)
    _models(folder)
    (folder / "variant.toml").write_text(VARIANT)
    (folder / "judge.toml").write_text(JUDGE)
    (folder / "rubric.md").write_text("Grade it.")
    (folder / "qwen1.json").write_text(json.dumps(QWEN1))
    make_run(folder / "run", prompts=4)
    means = (torch.randn(4, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    directions = Directions(*means, 4)
    save_directions(folder / "directions.safetensors", directions, {"base_hash": "b"})
    write_layers(directions, folder / "layers.safetensors")
    write_gguf(directions, folder / "vector.gguf", model_hint="llama")
    (folder / "table.toml").write_text((FOLDER / "smollm2_135m.toml").read_text())


def _tables(folder: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in PAIRS)
    (folder / "pairs.jsonl").write_text(lines)
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "pairs.json").write_text(json.dumps([[row["declined"], row["answered"]] for row in PAIRS]))
    (folder / "pairs.csv").write_text("\n".join(",".join(f'"{value}"' for value in row) for row in _cells(PAIRS)))
    (folder / "pairs.tsv").write_text("\n".join("\t".join(row) for row in _cells(PAIRS)))
    pq.write_table(pa.Table.from_pylist(PAIRS), folder / "pairs.parquet")
    (folder / "requests.txt").write_text("\n".join(row["declined"] for row in PAIRS))
    (folder / "requests.json").write_text(json.dumps([{"goal": row["declined"], "category": 3} for row in PAIRS]))
    chat = [{"messages": [{"role": "user", "content": row["declined"]}]} for row in PAIRS]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, chat)))
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, LABELS)))
    (folder / "labels.csv").write_text("\n".join(",".join(row) for row in _cells(LABELS)))
    pq.write_table(pa.Table.from_pylist(LABELS), folder / "labels.parquet")
    reading = {"id": "a", "compliance": 1, "coherence": 0.5, "refused": False}
    (folder / "rater.jsonl").write_text("".join(json.dumps(reading | {"id": name}) + "\n" for name in "abc"))


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]


def _models(folder: Path) -> None:
    save_tokenizer(save_tiny("llama", folder / "model"))
    save_tiny("llama", folder / "sharded", max_shard_size="40KB")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
    base = open_checkpoint(folder / "model")
    texts = dict.fromkeys(("variant", "variant_hash", "base_model", "basis_hash", "position", "estimator", "scope"), "x")
    record = texts | {"format": "refusal-edit/1", "alpha": 1.0, "keep_norms": False, "layers": [1], "basis_shape": [48, 2]}
    record |= {"base_hash": base.hash, "tensors": {tensor.name: 1.0 for tensor in plan_edit(base).edited}}
    write_edited(base, plan_edit(base), EDIT, folder / "edited", record=record, card=lambda proofs: "")
    write_adapter(base, plan_edit(base), EDIT, folder / "adapter", base_model="x", record=record, card="")
    save_file({"x": torch.ones(2)}, folder / "other.safetensors")


def _open(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    for tensor in plan_edit(checkpoint).writers:
        checkpoint.read(tensor.name)


def _render(folder: Path) -> None:
    overrides = {"model.path": str(folder / "model"), "directions.layers": [1], "data.num_pairs": 2, "data.num_requests": 2}
    session = Session(load_config("smollm2_135m_k1", overrides | {"data.num_answerable": 0, "sampling.max_tokens": 2}))
    session.renderer.render("Where is it?")


def _record(folder: Path) -> None:
    record = read_record(folder / "edited")
    read_edit(folder / "edited", record, 48)
    plan_of(open_checkpoint(folder / "model"), record)


def _taken(folder: Path, base: Path) -> None:
    checkpoint = open_checkpoint(base)
    found = replacement_of(folder, checkpoint)
    forensics_of(found, values_of(folder, found.form, checkpoint), checkpoint)


def _judge(folder: Path) -> None:
    judge = load_judge(str(folder / "judge.toml"))
    if judge is not None:
        judge.read_rubric()


KINDS = (
    *(Kind(f"pairs {form}", f"pairs.{form}", form, lambda folder, form=form: load_pairs(folder / f"pairs.{form}"))
      for form in ("jsonl", "json", "parquet")),
    Kind("pairs csv", "pairs.csv", "text", lambda folder: load_pairs(folder / "pairs.csv")),
    Kind("pairs tsv", "pairs.tsv", "text", lambda folder: load_pairs(folder / "pairs.tsv")),
    Kind("pairs gzip", "pairs.jsonl.gz", "gzip", lambda folder: load_pairs(folder / "pairs.jsonl.gz")),
    Kind("requests text", "requests.txt", "text", lambda folder: load_prompts(folder / "requests.txt")),
    Kind("requests json", "requests.json", "json", lambda folder: load_prompts(folder / "requests.json")),
    Kind("chat messages", "chat.jsonl", "jsonl", lambda folder: load_prompts(folder / "chat.jsonl")),
    Kind("labels jsonl", "labels.jsonl", "jsonl", lambda folder: load_labels(str(folder / "labels.jsonl"))),
    Kind("labels csv", "labels.csv", "text", lambda folder: load_labels(str(folder / "labels.csv"))),
    Kind("labels parquet", "labels.parquet", "parquet", lambda folder: load_labels(str(folder / "labels.parquet"))),
    Kind("a rater's readings", "rater.jsonl", "jsonl", lambda folder: readings(folder / "rater.jsonl")),
    Kind("a label sample", "rater.jsonl", "jsonl", lambda folder: read_lines(folder / "rater.jsonl")),
    Kind("config.json", "model/config.json", "json", lambda folder: _open(folder / "model")),
    Kind("index", "sharded/model.safetensors.index.json", "json", lambda folder: _open(folder / "sharded")),
    Kind("weights", "model/model.safetensors", "safetensors", lambda folder: _open(folder / "model")),
    Kind("tokenizer.json", "model/tokenizer.json", "json", _render),
    Kind("tokenizer_config.json", "model/tokenizer_config.json", "json", _render),
    Kind("chat template", "model/chat_template.jinja", "text", _render),
    Kind("adapter_config.json", "adapter/adapter_config.json", "json", lambda folder: read_adapter(folder / "adapter")),
    Kind("adapter weights", "adapter/adapter_model.safetensors", "safetensors", lambda folder: read_adapter(folder / "adapter")),
    Kind("edit.json", "edited/edit.json", "json", _record),
    Kind("basis", "edited/edit/basis.safetensors", "safetensors", _record),
    Kind("edited weights", "edited/model.safetensors", "safetensors",
         lambda folder: verify_checkpoint(folder / "edited", folder / "model")),
    Kind("directions", "directions.safetensors", "safetensors",
         lambda folder: unit_directions(load_directions(folder / "directions.safetensors"), [1, 2])),
    Kind("variant TOML", "variant.toml", "toml", lambda folder: load_config(str(folder / "variant.toml"))),
    Kind("judge TOML", "judge.toml", "toml", _judge),
    Kind("rollouts", "run/rollouts.parquet", "parquet",
         lambda folder: parquet_reader.read_table(folder / "run" / "rollouts.parquet", COLUMNS).to_pylist()),
    Kind("manifest", "run/manifest.json", "json", lambda folder: read_manifest(folder / "run")),
    Kind("their weights", "edited/model.safetensors", "safetensors",
         lambda folder: _taken(folder / "edited", folder / "model")),
    Kind("their LoRA", "adapter/adapter_model.safetensors", "safetensors",
         lambda folder: _taken(folder / "adapter", folder / "model")),
    Kind("layer-keyed directions", "layers.safetensors", "safetensors",
         lambda folder: read_layers(folder / "layers.safetensors")),
    Kind("control vector", "vector.gguf", "bytes", lambda folder: read_gguf(folder / "vector.gguf")),
    Kind("published table", "table.toml", "toml", lambda folder: read_table(str(folder / "table.toml"))),
    Kind("Qwen-1 config", "qwen1.json", "json", lambda folder: convert_config(read_object(folder / "qwen1.json", ""))),
)  # fmt: skip


def with_mutant(folder: Path, kind: Kind, data: bytes) -> None:
    """Put a mutant in the place of a specimen's file."""
    file = folder / kind.file
    file.unlink(missing_ok=True)  # a mapped file that is written over would end the process
    file.write_bytes(data)


def restore(folder: Path, specimens: Path, kind: Kind) -> None:
    """Put the whole file back."""
    (folder / kind.file).unlink(missing_ok=True)
    shutil.copy(specimens / kind.file, folder / kind.file)
