"""A checkpoint or adapter against its base.

Which tensors differ? What do edited ones still write along the removed directions (`bin/edit --verify`)? Is every tensor
what an edit makes of the base (`bin/serve`)?
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editing.adapter import CONFIG_FILE, adapter_config, lora_factors, read_adapter
from editing.apply import edited_tensor
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.plan import EditPlan, PlannedTensor, family_of
from editing.projection import Edit
from editing.proof import Proof, prove
from editing.tying import embedding_name
from editing.untie import untied
from editing.weight_files import INDEX_NAME
from editing.writer import carried_files

READ_BY_LOADERS = (".json", ".jinja", ".model", ".tiktoken", "merges.txt", "vocab.txt")  # not cards and licences


@dataclass(frozen=True)
class Comparison:
    """A checkpoint's tensors against its base's, by name.

    differing: in both, and not the same bit for bit.
    missing, added: in the base alone, in the checkpoint alone.
    """

    differing: list[str]
    missing: list[str]
    added: list[str]


def differing_tensors(checkpoint: Checkpoint, base: Checkpoint) -> Comparison:
    """Every tensor compared by its bits. Raises EditError where a common tensor has another shape or dtype."""
    common = sorted(base.tensors.keys() & checkpoint.tensors.keys())
    differing = []
    for name in common:
        ours, theirs = checkpoint.tensors[name], base.tensors[name]
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            raise EditError(
                f"{name} is {ours.shape} {ours.dtype} here and {theirs.shape} {theirs.dtype} in the base: another model."
            )
        if not _same_bits(checkpoint.read(name), base.read(name)):
            differing.append(name)
    missing = sorted(base.tensors.keys() - checkpoint.tensors.keys())
    return Comparison(differing, missing, sorted(checkpoint.tensors.keys() - base.tensors.keys()))


def prove_against(checkpoint: Checkpoint, base: Checkpoint, tensors: Iterable[PlannedTensor], edit: Edit) -> list[Proof]:
    """Proofs of the base's planned tensors as the checkpoint has them. `edit` is in terms of the base."""
    return [prove(base, tensor, edit, checkpoint.read(tensor.name)) for tensor in tensors]


def unfaithful_tensors(checkpoint: Checkpoint, base: Checkpoint, plan: EditPlan, edit: Edit) -> list[str]:
    """Names of tensors that are not what `edit` makes of the base; empty for a faithful checkpoint.

    Edited tensors may differ by what another machine's arithmetic rounds otherwise, untouched ones in no bit. Missing and
    added tensors are named too, but not the head that untying adds, the base's embedding.
    """
    edited = {tensor.name: tensor for tensor in plan.edited}
    added = checkpoint.tensors.keys() - base.tensors.keys()
    if plan.scope.untie:
        head, embedding = family_of(base).heads[0], embedding_name(base, family_of(base))
        if head in added and _same_bits(checkpoint.read(head), base.read(embedding)):
            added -= {head}

    def differs(name: str) -> bool:
        theirs, entry = base.tensors[name], checkpoint.tensors.get(name)
        if entry is None or (entry.shape, entry.dtype) != (theirs.shape, theirs.dtype):
            return True
        if name in edited:
            return not _close(checkpoint.read(name), edited_tensor(base, edited[name], edit))
        return not _same_bits(checkpoint.read(name), base.read(name))

    return _which(differs, sorted(base.tensors)) + sorted(added)


def unfaithful_files(directory: Path, base: Checkpoint, plan: EditPlan) -> list[str]:
    """Names of files beside an edited checkpoint's weights that are not the base's, byte for byte.

    Configuration, tokenizer and chat template count. Untying says so in config.json and writes another index, which is allowed.
    """
    differing = []
    for name, file in carried_files(base.directory).items():
        theirs = directory / name
        if not name.endswith(READ_BY_LOADERS) or (plan.scope.untie and name == INDEX_NAME):
            continue
        if not theirs.is_file():
            differing.append(name)
        elif plan.scope.untie and name == "config.json":
            if json.loads(theirs.read_text()) != untied(json.loads(file.read_text())):
                differing.append(name)
        elif theirs.read_bytes() != file.read_bytes():
            differing.append(name)
    return differing


def unfaithful_factors(directory: Path, base: Checkpoint, plan: EditPlan, edit: Edit) -> list[str]:
    """Names of the base's tensors whose factors in an adapter folder are not the edit's; empty for a faithful adapter.

    Missing and added tensors are named too, and the adapter's configuration where it differs.
    """
    found = read_adapter(directory)
    edited = {tensor.name: tensor for tensor in plan.edited}

    def differs(name: str) -> bool:
        if name not in found:
            return True
        return not all(map(_close, found[name], lora_factors(base, edited[name], edit)))

    config = json.loads((directory / CONFIG_FILE).read_text())
    expected = adapter_config(plan, edit, config.get("base_model_name_or_path", ""))
    changed = [] if config == expected else [CONFIG_FILE]
    return changed + _which(differs, sorted(edited)) + sorted(found.keys() - edited.keys())


def _which(differs: Callable[[str], bool], names: Sequence[str]) -> list[str]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [name for name, differing in zip(names, pool.map(differs, names), strict=True) if differing]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8))


def _close(found: Tensor, expected: Tensor) -> bool:
    """True where two tensors are equal to two last places; near zero, to float32's error in values of their size."""
    if found.shape != expected.shape:
        return False
    size = float(expected.float().square().mean().sqrt())
    return torch.allclose(found.float(), expected.float(), rtol=2 * torch.finfo(expected.dtype).eps, atol=1e-5 * size)
