"""A run as a Hugging Face dataset folder (Parquet, and the card by which `load_dataset(FOLDER, "rollouts")` finds it); as CSV."""

import csv
import io
import json
from pathlib import Path

from editing.card import for_markdown
from engine.exports.rows import RunRows, columns_of, flat
from engine.paths import copy_file, write_text
from engine.runs.files import ROLLOUTS, SCORES

CONFIGS = {"rollouts": ROLLOUTS, "scores": SCORES}
CARD = """---
configs:
{configs}
tags: [refusal-direction, interpretability]
---

# Responses of {name}

{responses} responses of {count} variants ({variants}) to {prompts} requests, and what judges said of them.
Rows of `rollouts` and `scores` belong together by `variant_hash` and `prompt_id`.
"""
CONFIG = """- config_name: {name}
  data_files:
  - split: train
    path: data/{file}"""


def write_dataset(run: RunRows, source: Path, out: Path) -> None:
    """Write the folder `out`, which is there and empty: data/*.parquet and README.md."""
    (out / "data").mkdir()
    there = {name: file for name, file in CONFIGS.items() if (source / file).is_file()}
    for file in there.values():
        copy_file(source / file, out / "data" / file)
    card = CARD.format(
        configs="\n".join(CONFIG.format(name=name, file=file) for name, file in there.items()),
        name=for_markdown(run.name),
        responses=len(run.rollouts),
        count=len(run.variants),
        variants=", ".join(map(for_markdown, run.variants)),
        prompts=len({row["prompt_id"] for row in run.rollouts}),
    )
    write_text(out / "README.md", card)


def as_csv(run: RunRows) -> str:
    """A row a response and score, UTF-8; lists as JSON."""
    rows = flat(run)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()})
    return stream.getvalue()
