"""A model card for every edited checkpoint: what was removed, from which base, and how it was proven."""

import json
import re
from collections.abc import Mapping
from typing import Any

OBEYED = re.compile(r"[\\`*<>\[\]|&]")
CARD = """---
base_model: {yaml_name}
tags: [refusal-direction, interpretability, research]
---

# {label}: an edited copy of {base_model}

This checkpoint was edited for research on how refusal is represented in language models. It may answer what the base
model would decline, and it has not been made safe for any other use. Do not deploy it.

| | |
| --- | --- |
| removed | the projection onto {k} direction(s) of the residual stream, from {num_tensors} tensors ({scope}) |
| directions | layers {layers} (resid_pre numbering), position `{position}`, estimator `{estimator}` |
| alpha | {alpha} (1 removes the projection whole) |
| base | {base_model}, SHA-256 `{base_hash}` |
| basis | SHA-256 `{basis_hash}` |
| variant | `{variant_hash}` |
| proof | {proof} |

W' = W - alpha Q (Q^T W) on every matrix named in `edit.json`, rounded once to the checkpoint's
dtype; where a norm with gain g follows the projection, W' = W - alpha A (diag(g) Q)^T W takes the projection out of what the
norm puts out, up to the norm's scale. Every other tensor is byte-identical to the base. The base model's licence applies.
"""


def render_card(record: Mapping[str, Any], proof: str) -> str:
    """The model card as Markdown.

    record: the fields of edit.json.
    proof: a sentence on the proof.
    """
    counts = {"num_tensors": len(record["tensors"]), "k": record["basis_shape"][1]}
    shown = {name: for_markdown(value) if isinstance(value, str) else value for name, value in record.items()}
    yaml_name = json.dumps(record["base_model"])  # a JSON text is one in YAML too
    return CARD.format(**shown, **counts, yaml_name=yaml_name, label=shown["variant"], proof=for_markdown(proof, code=True))


def for_markdown(text: str, *, code: bool = False) -> str:
    """A text from outside on one line, with the characters that Markdown and HTML obey escaped; `code` leaves backticks be."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return OBEYED.sub(lambda sign: sign.group() if code and sign.group() == "`" else f"\\{sign.group()}", line)
