"""What kind of edit made a checkpoint of its base: ranks, shared directions and norms of the change W' - W.

Written for other people's checkpoints: nothing but the two folders is read. A change is looked at tensor by tensor, and over all
writers of the residual stream together. The words of `Forensics.looks_like` follow from the numbers beside them.
"""
# H = output rows or hidden size, I = a tensor's other size, K = directions, R = singular values that are looked at

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.checkpoint import Checkpoint
from editing.plan import PROJECTIONS, plan_edit
from editing.proof import UNIT_ROUNDOFF
from editing.replacement import ADAPTER, Read, Replacement
from editing.spectrum import Pool

LOOKED_AT = 33  # singular values of a change: what adds up to less is of full rank
ROUNDED, EDGE = 0.76, 2.3  # rounding's deviation in unit roundoffs, and its largest singular value over the random one's
WHOLE = 0.97  # of a change's energy in so few directions: the rest is rounding
SHARED = 0.9  # of the writers' change in one small space: the directions are the same everywhere
KEPT = 2e-3  # relative change of a row's or column's norm that rounding explains
AWAY = (0.9, 1.1)  # share removed along a direction that counts as all of it


@dataclass(frozen=True)
class TensorChange:
    """One tensor's change D = W' - W.

    relative: ||D|| / ||W||.
    effective_rank: (sum s^2)^2 / sum s^4 over D's singular values s; None for a vector.
    rank: singular values of D above what rounding makes; None where there are more than LOOKED_AT.
    leading: share of ||D||^2 in the first singular direction.
    removed: share of W taken away along D's leading left directions: 1 all, 2 a reflection, 0 none. None beside writers.
    norms_kept: "rows" or "columns" where those norms are W's although W' is not.
    """

    name: str
    layer: int | None
    is_writer: bool
    relative: float
    effective_rank: float | None = None
    rank: int | None = None
    leading: float | None = None
    removed: float | None = None
    norms_kept: str = ""


@dataclass(frozen=True)
class Forensics:
    """What a replacement does to its base.

    space_HK: leading directions of the stream that the writers' changes share, orthonormal; K = 0 where none stand apart.
    shared: share of the writers' change that lies in it.
    looks_like: a sentence.
    """

    changes: list[TensorChange]
    space_HK: Tensor
    shared: float
    looks_like: str

    @property
    def layers(self) -> list[int]:
        """Blocks with a changed tensor."""
        return sorted({change.layer for change in self.changes if change.layer is not None})


def forensics_of(replacement: Replacement, read: Read, base: Checkpoint) -> Forensics:
    """Everything that the change shows; every tensor that differs is read once."""
    writers = {tensor.name: tensor for tensor in plan_edit(base).writers if tensor.role in PROJECTIONS}
    pool, changes = Pool(base.hidden_size), []
    for name in replacement.names:
        old, new = base.read(name), read(name)
        if old.shape != new.shape:
            continue
        known = writers.get(name)
        axis = known.axis if known else 0
        change, left_HR = _change(name, old, new, axis, is_writer=known is not None, layer=layer_of(name))
        changes.append(change)
        if left_HR is not None and known is not None:
            pool.total_HH += left_HR @ left_HR.T
            pool.vectors += old.numel() // base.hidden_size
    space_HK, shares = pool.leading() if pool.vectors else (torch.zeros(base.hidden_size, 0, dtype=torch.float64), [])
    shared = float(sum(shares[: space_HK.shape[1]]))
    return Forensics(changes, space_HK, shared, looks_like(replacement, changes, space_HK.shape[1], shared))


def layer_of(name: str) -> int | None:
    """A tensor's block, by the first number in its name."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _change(
    name: str, old: Tensor, new: Tensor, axis: int, *, is_writer: bool, layer: int | None
) -> tuple[TensorChange, Tensor | None]:
    """A tensor's change, and its leading left directions by their shares' roots, (H, R) float64; None for a vector."""
    before, after = old.float(), new.float()
    change = after - before
    relative = float(change.norm() / before.norm().clamp_min(1e-30))
    if change.dim() != 2:
        return TensorChange(name, layer, is_writer, relative), None
    turned_HI = change if axis == 0 else change.T
    left_HR, values_R = _leading(turned_HI)
    energy = float(change.double().square().sum())
    small = turned_HI if turned_HI.shape[0] <= turned_HI.shape[1] else turned_HI.T
    fourth = float((small @ small.T).double().square().sum())
    rank = _rank(values_R, before, after, old.dtype, energy)
    removed = None
    if is_writer and rank:
        kept_HR = left_HR[:, : max(1, round(energy**2 / fourth))]
        removed = _removed(before if axis == 0 else before.T, after if axis == 0 else after.T, kept_HR)
    leading = float(values_R[0].double().square()) / energy
    found = TensorChange(
        name, layer, is_writer, relative, energy**2 / fourth, rank, leading, removed, _norms_kept(before, after, relative)
    )
    return found, left_HR.double() * (values_R.double() / energy**0.5)


def _leading(change_HI: Tensor) -> tuple[Tensor, Tensor]:
    """Leading left singular vectors (H, R) and values (R,); the same for equal changes."""
    count = min(LOOKED_AT, *change_HI.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left_HR, values_R, _ = torch.svd_lowrank(change_HI, q=count, niter=3)
    return left_HR, values_R


def _rank(values_R: Tensor, before: Tensor, after: Tensor, dtype: torch.dtype, energy: float) -> int | None:
    """Singular values above those of the rounding of W; None where they hold less than WHOLE of the change."""
    rows, columns = before.shape
    size = max(float(weight.square().mean().sqrt()) for weight in (before, after))
    noise = ROUNDED * UNIT_ROUNDOFF[dtype] * size
    found = int((values_R > EDGE * noise * (rows**0.5 + columns**0.5)).sum())
    explained = float(values_R[:found].double().square().sum()) + noise**2 * before.numel()
    return found if explained >= WHOLE * energy and found < len(values_R) else None


def _removed(before_HI: Tensor, after_HI: Tensor, left_HR: Tensor) -> float:
    old, new = left_HR.T @ before_HI, left_HR.T @ after_HI
    return 1 - float((old * new).sum() / old.square().sum().clamp_min(1e-30))


def _norms_kept(before: Tensor, after: Tensor, relative: float) -> str:
    """Which norms are the base's to rounding, where the change itself is well above it."""
    for word, axis in (("rows", 1), ("columns", 0)):
        old, new = before.norm(dim=axis), after.norm(dim=axis)
        if relative > 5 * KEPT and float(((new - old) / old.clamp_min(1e-30)).abs().median()) < KEPT / 4 and _close(old, new):
            return word
    return ""


def _close(old: Tensor, new: Tensor) -> bool:
    return float(((new - old) / old.clamp_min(1e-30)).abs().max()) < KEPT


def looks_like(replacement: Replacement, changes: Sequence[TensorChange], directions: int, shared: float) -> str:
    """A sentence on what made the change, from its numbers."""
    converted = set() if replacement.comparison is None else set(replacement.comparison.converted)
    if {change.name for change in changes} <= converted:
        return _copy(replacement)
    where = _where(changes)
    if replacement.form == ADAPTER:
        return f"a LoRA of rank {replacement.rank} {where}"
    matrices = [change for change in changes if change.effective_rank is not None]
    kept = _common([change.norms_kept for change in matrices])
    writers = [change for change in matrices if change.is_writer]
    removed = [change.removed for change in writers if change.removed is not None]
    if kept and writers:
        return f"directions taken out of what is written, {kept}' norms kept {where}"
    if len(writers) == len(matrices) and removed and len(removed) == len(writers) and all(one > 0.05 for one in removed):
        return f"{_taken(writers, removed, directions, shared)} {where}"
    if matrices and all(change.rank is not None for change in matrices):
        return f"a low-rank update (rank up to {max(change.rank or 0 for change in matrices)}), as a merged LoRA is, {where}"
    return f"a change of full rank, as training, merging or noise makes, {where}"


def _copy(replacement: Replacement) -> str:
    found = replacement.comparison
    if found is not None and (found.converted or found.padded):
        parts = ["stored in another type"] if found.converted else []
        parts += ["with other rows of the vocabulary"] if found.padded else []
        return f"the base itself, {' and '.join(parts)}"
    return "the base itself: no tensor differs"


def _taken(writers: Sequence[TensorChange], removed: Sequence[float], directions: int, shared: float) -> str:
    middle = sorted(removed)[len(removed) // 2]
    part = "all" if AWAY[0] <= middle <= AWAY[1] else f"{middle:.2f} of them"
    ranks = sorted(change.rank or 0 for change in writers)
    if 0 < directions <= max(ranks[len(ranks) // 2], 1) and (shared >= SHARED or len({one.layer for one in writers}) == 1):
        return f"{directions} direction{'s' if directions > 1 else ''} projected out ({part})"
    return f"each block's own direction projected out ({part})"


def _where(changes: Sequence[TensorChange]) -> str:
    layers = sorted({change.layer for change in changes if change.layer is not None})
    blocks = "outside the blocks" if not layers else f"in block {layers[0]}" if len(layers) == 1 else f"in {len(layers)} blocks"
    return f"({len(changes)} tensor{'s' if len(changes) > 1 else ''} {blocks})"


def _common(words: Sequence[str]) -> str:
    """The word that most have; "" where that is none."""
    best = max(set(words), key=words.count, default="")
    return best if best and 2 * words.count(best) > len(words) else ""


def angles(one_HK: Tensor, other_HK: Tensor) -> list[float]:
    """Principal angles between two spaces, in degrees, ascending; none where either is empty. Björck and Golub (1973)."""
    if not one_HK.shape[1] or not other_HK.shape[1]:
        return []
    cosines = torch.linalg.svdvals(one_HK.double().T @ other_HK.double()).clamp(0, 1)
    return [float(angle) for angle in torch.rad2deg(torch.acos(cosines))]


def inside(space_HK: Tensor, units_LH: Tensor) -> list[float]:
    """The length of each unit direction's part in a space: |cosine| to it; 0 for an empty space."""
    if not space_HK.shape[1]:
        return [0.0] * len(units_LH)
    return [float(length) for length in (units_LH.double() @ space_HK.double()).norm(dim=1)]
