"""The cost of an edit: `bin/edit`'s writer against `cp -r` of the same folder, in turns, on a random Llama-shaped checkpoint."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.environment import describe

HIDDEN, INTERMEDIATE, KV_WIDTH, VOCABULARY = 2048, 8192, 512, 128256  # Llama-3.2-1B's, untied and with more blocks
SHARD_BYTES = 1 << 30

CHILD = """
import json, sys, time
from pathlib import Path
import torch
import safetensors
from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
base, out, k = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.ones(64, 64) @ torch.ones(64, 64)
def peak():  # VmHWM starts anew with the process; ru_maxrss would carry over its parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
started = time.monotonic()
checkpoint = open_checkpoint(base)
edit = Edit(orthonormal_basis(torch.randn(k, checkpoint.hidden_size)), 1.0)
proofs = write_edited(checkpoint, plan_edit(checkpoint), edit, out, record={}, card=lambda proofs: "")
seconds = time.monotonic() - started
print(json.dumps({"seconds": seconds, "rss_kb": peak() - before, "worst": max(proof.residual for proof in proofs)}))
"""


def bench_edit(gigabytes: float, k: int, rounds: int) -> dict[str, Any]:
    """Median ratio of wall times over `rounds` (each one copy and one edit), and the peak memory beyond the imports."""
    with tempfile.TemporaryDirectory(prefix="bench-edit-", dir=os.environ.get("TMPDIR")) as folder:
        base, out = Path(folder) / "base", Path(folder) / "out"
        write_random_llama(base, gigabytes)
        copies, edits = [], []
        for number in range(rounds + 1):
            copy, edit = _timed_copy(base, out), _edit(base, out, k)
            if number:  # the first round warms the page cache
                copies.append(copy)
                edits.append(edit)
        size = sum(file.stat().st_size for file in base.iterdir())
    return {
        "ratio_to_cp": round(statistics.median(edit["seconds"] / copy for edit, copy in zip(edits, copies, strict=True)), 3),
        "peak_rss_gb": round(max(edit["rss_kb"] for edit in edits) / 1e6, 3),
        "cp_seconds": [round(seconds, 2) for seconds in copies],
        "edit_seconds": [round(edit["seconds"], 2) for edit in edits],
        "worst_residual": edits[-1]["worst"],
        "k": k,
        "model": f"random Llama, {size / 1e9:.2f} GB bf16",
        **describe(),
    }


def write_random_llama(directory: Path, gigabytes: float) -> None:
    """A random bf16 checkpoint of about this size in shards of 1 GiB, with Llama's names and proportions."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir()
    per_block = 2 * (2 * HIDDEN * HIDDEN + 2 * KV_WIDTH * HIDDEN + 3 * INTERMEDIATE * HIDDEN)
    blocks = max(1, round((gigabytes * 1e9 - 4 * VOCABULARY * HIDDEN) / per_block))
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    pending = list(_shapes(blocks).items())
    for place, (name, shape) in enumerate(pending):
        shard[name] = torch.randn(shape, generator=generator, dtype=torch.float32).mul_(0.02).to(torch.bfloat16)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES or place == len(pending) - 1:
            file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, directory / file, {"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
            shard = {}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = {"model_type": "llama", "num_hidden_layers": blocks, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE}
    (directory / "config.json").write_text(json.dumps(config))


def _shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(blocks):
        block = f"model.layers.{layer}."
        shapes |= {block + f"{name}layernorm.weight": (HIDDEN,) for name in ("input_", "post_attention_")}
        shapes |= {block + f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qo"}
        shapes |= {block + f"self_attn.{name}_proj.weight": (KV_WIDTH, HIDDEN) for name in "kv"}
        shapes |= {block + f"mlp.{name}_proj.weight": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")}
        shapes[block + "mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def _timed_copy(base: Path, out: Path) -> float:
    os.sync()  # neither side pays for writing back the other's pages
    started = time.monotonic()
    subprocess.run(["cp", "-r", str(base), str(out)], check=True)
    seconds = time.monotonic() - started
    shutil.rmtree(out)
    return seconds


def _edit(base: Path, out: Path, k: int) -> dict[str, Any]:
    os.sync()
    run = subprocess.run([sys.executable, "-c", CHILD, str(base), str(out), str(k)], check=True, capture_output=True, text=True)
    shutil.rmtree(out)
    return json.loads(run.stdout)
