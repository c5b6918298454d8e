"""A checkpoint or a LoRA of others as the values that it gives its base's tensors: what an engine on the base exchanges for it.

A LoRA counts as merged: W + B A, rounded once to the base's type. Knows no engine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editing.adapter import CONFIG_FILE, merge_factors, read_adapter, read_adapter_config
from editing.checkpoint import Checkpoint, open_checkpoint
from editing.compare import Comparison, differing_tensors
from editing.errors import EditError

CHECKPOINT, ADAPTER = "checkpoint", "adapter"
Read = Callable[[str], Tensor]
"""A tensor's values by its name in the base, in the base's shape."""
SAME_ANCESTOR = 0.5  # cosine of W' and W below which two checkpoints are no edits of one another; measured: unrelated 0.00
LOOKED_AT = 5  # matrices that it is measured on
BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # loaders compute these


@dataclass(frozen=True)
class Replacement:
    """What a folder changes of its base.

    form: CHECKPOINT or ADAPTER.
    names: the base's tensors that have other values in it, in order.
    comparison: every tensor's state; None for an adapter.
    apart: why an engine on the base cannot hold it; "" where it can.
    rank: the largest of an adapter's; None for a checkpoint.
    """

    directory: Path
    form: str
    names: tuple[str, ...]
    comparison: Comparison | None
    apart: str = ""
    rank: int | None = None


def replacement_of(directory: Path, base: Checkpoint) -> Replacement:
    """What a checkpoint's or adapter's folder changes of `base`.

    Raises EditError for a folder of another architecture or base, and for an adapter of other shapes or of another kind.
    """
    if (directory / CONFIG_FILE).is_file():
        factors = read_adapter(directory)
        _check_plain(directory)
        _check_shapes(directory, factors, base)
        rank = max((len(factor_KI) for factor_KI, _ in factors.values()), default=0)
        return Replacement(directory, ADAPTER, tuple(sorted(factors)), None, rank=rank)
    checkpoint = open_checkpoint(directory)
    check_kind(checkpoint, base)
    found = differing_tensors(checkpoint, base)
    rounded = [name for name in found.converted if not _equal(checkpoint.read(name), base.read(name))]
    names = tuple(sorted([*found.differing, *rounded]))
    _check_ancestor(checkpoint, base, names)
    return Replacement(directory, CHECKPOINT, names, found, _apart(checkpoint, base, found))


def values_of(directory: Path, form: str, base: Checkpoint) -> Read:
    """The values that a replacement gives the base's tensors; those that it does not hold are the base's."""
    if form == ADAPTER:
        factors = read_adapter(directory)
        return lambda name: merge_factors(base.read(name), *factors[name]) if name in factors else base.read(name)
    checkpoint = open_checkpoint(directory)
    return lambda name: (checkpoint if name in checkpoint.tensors else base).read(name)


def check_kind(checkpoint: Checkpoint, base: Checkpoint) -> None:
    """Raise EditError for a checkpoint of another architecture than the base's."""
    sizes = ("model_type", "num_layers", "hidden_size")
    for name in sizes:
        ours, theirs = getattr(checkpoint, name), getattr(base, name)
        if ours != theirs:
            raise EditError(
                f"{checkpoint.directory} is of another architecture than the base {base.directory}: {name.replace('_', ' ')} "
                f"{ours}, expected {theirs}. Give the base that it was made from."
            )


def _check_ancestor(checkpoint: Checkpoint, base: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise EditError where the matrices that differ have nothing to do with the base's."""
    matrices = [name for name in names if len(base.tensors[name].shape) == 2]
    sampled = matrices[:: max(1, len(matrices) // LOOKED_AT)][:LOOKED_AT]
    if 2 * len(names) < len(base.tensors) or not sampled:
        return
    cosines = sorted(_cosine(checkpoint.read(name), base.read(name)) for name in sampled)
    if (middle := cosines[len(cosines) // 2]) < SAME_ANCESTOR:
        raise EditError(
            f"{checkpoint.directory} was made from another base than {base.directory}: its weights have cosine {middle:.2f} with "
            f"the base's, expected {SAME_ANCESTOR} at least. Give the base that it was made from."
        )


def _apart(checkpoint: Checkpoint, base: Checkpoint, found: Comparison) -> str:
    """Why the base's engine cannot hold a checkpoint; "" where it can. Missing tensors do not count: the base's stand in."""
    if found.padded:
        name = found.padded[0]
        return f"{name} has {checkpoint.tensors[name].shape[0]} rows, the base's {base.tensors[name].shape[0]}"
    if found.odd:
        name, forms = next(iter(found.odd.items()))
        return f"{name} is {forms}"
    added = [name for name in found.added if not name.endswith(BUFFERS) and not _is_spare(checkpoint, name)]
    return f"it adds {added[0]}" + (f" and {len(added) - 1} more" if len(added) > 1 else "") if added else ""


def _is_spare(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor is a second copy of the embedding, which loaders tie."""
    from editing.plan import family_of
    from editing.tying import head_of

    family = family_of(checkpoint)
    return name in family.heads and head_of(checkpoint, family).tied


def _check_plain(directory: Path) -> None:
    config = read_adapter_config(directory)
    if beyond := next((key for key in ("alpha_pattern", "rank_pattern", "fan_in_fan_out") if config.get(key)), None):
        raise EditError(f"{directory} sets {beyond}, which is not read here. Merge it with PEFT and give the merged model.")


def _check_shapes(directory: Path, factors: dict[str, tuple[Tensor, Tensor]], base: Checkpoint) -> None:
    for name, (factor_KI, factor_HK) in factors.items():
        found, there = (factor_HK.shape[0], factor_KI.shape[1]), base.tensors.get(name)
        if there is None or there.shape != found:
            expected = f"has {there.shape}" if there else f"has no {name}"
            raise EditError(
                f"{directory} changes {name} with shape {found}, and the base {base.directory} {expected}. Give the base that it "
                "was trained on."
            )


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.float(), theirs.float())


def _cosine(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return 0.0
    one, other = ours.float().flatten(), theirs.float().flatten()
    return float(one @ other / (one.norm() * other.norm()).clamp_min(1e-30))
