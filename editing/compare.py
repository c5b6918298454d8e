"""A checkpoint or adapter against its base.

Which tensors differ? What do edited ones still write along the removed directions (`bin/edit --verify`)? Is every tensor
what an edit makes of the base (`bin/serve`)?
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editing.adapter import CONFIG_FILE, adapter_config, lora_factors, read_adapter, read_adapter_config
from editing.apply import edited_tensor
from editing.checkpoint import Checkpoint
from editing.header import DTYPES
from editing.plan import EditPlan, PlannedTensor, family_of
from editing.projection import Edit
from editing.proof import Proof, prove
from editing.reading import read_object
from editing.tying import embedding_name
from editing.untie import untied
from editing.weight_files import INDEX_NAME
from editing.writer import carried_files

SAME, DIFFERING, CONVERTED, PADDED, ODD = "same", "differing", "converted", "padded", "odd"
COPY_AGAIN = "Copy it again."
READ_BY_LOADERS = (".json", ".jinja", ".model", ".tiktoken", "merges.txt", "vocab.txt")  # not cards and licences


@dataclass(frozen=True)
class Comparison:
    """A checkpoint's tensors against its base's, by name: what is in neither list is the same bit for bit.

    differing: in both, with other values.
    converted: stored in another type, with the values that the conversion gives.
    padded: with more or fewer rows, as a padded vocabulary has them; the rows in common are the same.
    odd: of shapes or types that cannot be compared, each with both.
    missing, added: in the base alone, in the checkpoint alone.
    """

    differing: list[str]
    converted: list[str]
    padded: list[str]
    odd: dict[str, str]
    missing: list[str]
    added: list[str]


def differing_tensors(checkpoint: Checkpoint, base: Checkpoint) -> Comparison:
    """Every tensor that two checkpoints share compared by its values; one that cannot be compared does not stop the others."""
    found: dict[str, list[str]] = {kind: [] for kind in (SAME, DIFFERING, CONVERTED, PADDED, ODD)}
    for name in sorted(base.tensors.keys() & checkpoint.tensors.keys()):
        found[_difference(checkpoint, base, name)].append(name)
    odd = {name: f"{_form(checkpoint, name)} here, {_form(base, name)} in the base" for name in found[ODD]}
    missing = sorted(base.tensors.keys() - checkpoint.tensors.keys())
    added = sorted(checkpoint.tensors.keys() - base.tensors.keys())
    return Comparison(found[DIFFERING], found[CONVERTED], found[PADDED], odd, missing, added)


def _difference(checkpoint: Checkpoint, base: Checkpoint, name: str) -> str:
    ours, theirs = checkpoint.tensors[name], base.tensors[name]
    is_comparable = ours.dtype == theirs.dtype or {ours.dtype, theirs.dtype} <= DTYPES.keys()
    if not is_comparable or len(ours.shape) != len(theirs.shape) or ours.shape[1:] != theirs.shape[1:]:
        return ODD
    if ours.shape == theirs.shape == ():
        return SAME if _same_values(checkpoint.read(name), base.read(name)) else DIFFERING
    rows = min(ours.shape[0], theirs.shape[0])
    if not _same_values(checkpoint.read(name)[:rows], base.read(name)[:rows]):
        return DIFFERING
    if ours.shape != theirs.shape:
        return PADDED
    return SAME if ours.dtype == theirs.dtype else CONVERTED


def _same_values(ours: Tensor, theirs: Tensor) -> bool:
    """True for the same bits, or where either is the other rounded to its type."""
    if ours.dtype == theirs.dtype:
        return _same_bits(ours, theirs)
    return torch.equal(ours, theirs.to(ours.dtype)) or torch.equal(ours.to(theirs.dtype), theirs)


def _form(checkpoint: Checkpoint, name: str) -> str:
    entry = checkpoint.tensors[name]
    return f"{entry.shape} {entry.dtype}"


def prove_against(checkpoint: Checkpoint, base: Checkpoint, tensors: Iterable[PlannedTensor], edit: Edit) -> list[Proof]:
    """Proofs of the base's planned tensors as the checkpoint has them, of those that it has in the base's shape.

    edit: in terms of the base.
    """
    there = [tensor for tensor in tensors if _is_provable(checkpoint, tensor)]
    return [prove(base, tensor, edit, checkpoint.read(tensor.name)) for tensor in there]


def _is_provable(checkpoint: Checkpoint, tensor: PlannedTensor) -> bool:
    entry = checkpoint.tensors.get(tensor.name)
    return (
        entry is not None
        and entry.dtype in DTYPES
        and entry.shape[1:] == tensor.shape[1:]
        and len(entry.shape) == len(tensor.shape)
    )


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
            if read_object(theirs, COPY_AGAIN) != untied(read_object(file, COPY_AGAIN)):
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

    config = read_adapter_config(directory)
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
