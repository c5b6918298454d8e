"""Spectra of what writers write: directions that are missing, directions that a change shares, and channels by themselves.

G = sum of W W^T over some writers, each scaled to trace 1, in float64. A small channel makes a small eigenvalue of G, though
nothing was removed. So missing directions are looked for in the correlation C = E^-1/2 G E^-1/2, with E the diagonal of G: a
direction q with q^T G = 0 is its null vector E^1/2 q, and scaling channels does not change its eigenvalues.
"""
# H = hidden size, N = vectors, K = directions

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.apply import gain_of
from editing.checkpoint import Checkpoint
from editing.plan import PlannedTensor

MAX_RANK = 32  # more directions than this are not looked for
GAP = 4.0  # an eigenvalue this many times below the next sets those before it apart
CLEAR = 0.05  # of the mean: missing, not merely small
VECTORS_PER_DIM = 1.5  # writers with fewer vectors than this times H have a null space of their own
SMALL_CHANNEL = 0.05  # of the median energy
DEAD = 1e-10  # of the median energy: a channel that nobody writes
AXIS = 0.99  # of a channel's unit vector inside a space: the channel is one of its directions
BESIDE_AXES = 0.5  # what is left of a unit direction without the axes, above which it is a direction of its own
ANOTHER = 0.7  # what is left of a unit direction beside those before it, above which it is another
GRAM_BLOCK = 4096  # vectors at a time
EVERYWHERE, ROLE, ONE_BLOCK, ONE_TENSOR = range(4)  # the breadth of a look


class Pool:
    """A sum of unit-trace grams, and the number of vectors in it that are not zero."""

    def __init__(self, size: int) -> None:
        self.total_HH = torch.zeros(size, size, dtype=torch.float64)
        self.vectors = 0

    @classmethod
    def of(cls, weight: Tensor, axis: int) -> "Pool":
        """The pool of one tensor, computed on the GPU where there is one."""
        vectors_NH = weight.movedim(axis, -1).flatten(0, -2)
        pool = cls(vectors_NH.shape[1])
        total_HH = pool.total_HH.to("cuda" if torch.cuda.is_available() else "cpu")
        for block_BH in vectors_NH.split(GRAM_BLOCK):
            block = block_BH.to(total_HH.device, torch.float64)
            total_HH.addmm_(block.T, block)
            pool.vectors += int(block.any(1).sum())
        pool.total_HH = (total_HH / total_HH.trace().clamp_min(1e-30)).cpu()
        return pool

    def add(self, other: "Pool") -> None:
        self.total_HH += other.total_HH
        self.vectors += other.vectors

    @property
    def is_wide(self) -> bool:
        """True where there are enough vectors to fill the hidden space by themselves."""
        return self.vectors >= VECTORS_PER_DIM * self.total_HH.shape[0]

    @property
    def small_channels(self) -> list[int]:
        """Channels whose energy is far below the median's."""
        energies_H = self.total_HH.diagonal()
        return torch.nonzero(energies_H < SMALL_CHANNEL * energies_H.median()).flatten().tolist()

    def correlation(self) -> tuple[Tensor, Tensor]:
        """Ascending eigenvalues of C, mean 1, and the unit directions of the stream that belong to them, (H, H)."""
        energies_H = self.total_HH.diagonal()
        alive_H = energies_H > DEAD * energies_H.median()
        scale_H = torch.where(alive_H, energies_H.clamp_min(1e-300).rsqrt(), 0.0)
        correlation_HH = scale_H[:, None] * self.total_HH * scale_H
        correlation_HH.diagonal()[~alive_H] = 1.0
        values, vectors = torch.linalg.eigh(correlation_HH)
        directions = torch.where(alive_H, scale_H, 1.0)[:, None] * vectors
        return values, directions / directions.norm(dim=0)

    def missing(self) -> tuple[Tensor, float] | None:
        """Missing directions (H, K), orthonormal, and the mean energy left along them; None where none stand apart."""
        if not self.is_wide:
            return None
        values, directions_HH = self.correlation()
        count = gap_count(values)
        if not count:
            return None
        return torch.linalg.qr(directions_HH[:, :count])[0], float(values[:count].clamp_min(0).mean())

    def leading(self) -> tuple[Tensor, list[float]]:
        """Leading directions (H, K) that stand apart above the rest, and the eight largest shares of the energy."""
        values, vectors = torch.linalg.eigh(self.total_HH)
        shares = values.flip(0) / values.sum().clamp_min(1e-30)
        return vectors.flip(1)[:, : leading_count(shares)].contiguous(), shares[:8].tolist()


@dataclass(frozen=True)
class Look:
    """Writers that are looked at together."""

    breadth: int
    tensors: tuple[PlannedTensor, ...]


def looks(writers: Sequence[PlannedTensor], size: int, read: Callable[[PlannedTensor], Tensor]) -> Iterator[tuple[Look, Pool]]:
    """Every tensor, block and role, and all writers, with what `read` gives of them; no more than one block's are in memory."""
    wide: dict[str, Pool] = {}
    for tensors in by_layer(writers).values():
        block = Pool(size)
        for tensor in tensors:
            alone = Pool.of(read(tensor), tensor.axis)
            for pool in (block, *(wide.setdefault(name, Pool(size)) for name in ("", tensor.role))):
                pool.add(alone)
            yield Look(ONE_TENSOR, (tensor,)), alone
        yield Look(ONE_BLOCK, tuple(tensors)), block
    for role, pool in wide.items():
        yield Look(ROLE if role else EVERYWHERE, tuple(tensor for tensor in writers if role in ("", tensor.role))), pool


def by_layer(writers: Sequence[PlannedTensor]) -> dict[int, list[PlannedTensor]]:
    """Writers by their block, in order."""
    layers: dict[int, list[PlannedTensor]] = {}
    for tensor in writers:
        if tensor.layer is not None:
            layers.setdefault(tensor.layer, []).append(tensor)
    return layers


def written(checkpoint: Checkpoint, tensor: PlannedTensor) -> Tensor:
    """A writer as it reaches the residual stream, in float32: times the gain of the norm that may follow it."""
    weight, gain_H = checkpoint.read(tensor.name).float(), gain_of(checkpoint, tensor)
    if gain_H is None:
        return weight
    return weight * (gain_H[:, None] if tensor.axis == 0 else gain_H).float()


def gap_count(eigenvalues: Tensor) -> int:
    """The number of ascending eigenvalues that stand apart below the rest; 0 where none do.

    They stand apart where the step to the next is more than GAP and the last of them below CLEAR of the mean.
    """
    values = eigenvalues.clamp_min(1e-12 * float(eigenvalues.mean())) / eigenvalues.mean()
    limit = min(MAX_RANK, values.numel() // 4)
    steps = values[1 : limit + 1] / values[:limit]
    steps = torch.where(values[:limit] < CLEAR, steps, torch.zeros_like(steps))
    best = int(steps.argmax())
    return best + 1 if float(steps[best]) > GAP else 0


def leading_count(shares: Tensor) -> int:
    """The number of descending shares before the largest relative step, among the first MAX_RANK; 0 where it is below GAP."""
    limit = min(MAX_RANK, shares.numel() // 4)
    steps = shares[:limit].clamp_min(1e-12) / shares[1 : limit + 1].clamp_min(1e-12)
    best = int(steps.argmax())
    return best + 1 if float(steps[best]) > GAP else 0


def axes_in(space_HK: Tensor, least: float) -> list[int]:
    """Channels of whose unit vectors more than `least` lies in an orthonormal space."""
    return torch.nonzero(space_HK.square().sum(1) > least).flatten().tolist()


def beside_axes(space_HK: Tensor, axes: list[int]) -> Tensor:
    """What is left of an orthonormal space beside some channels, (H, fewer)."""
    rest_HK = space_HK.clone()
    rest_HK[axes] = 0.0
    vectors, values, _ = torch.linalg.svd(rest_HK, full_matrices=False)
    return vectors[:, values > BESIDE_AXES]


def merged(spaces: Sequence[Tensor], size: int) -> Tensor:
    """An orthonormal basis (H, K) of several spaces, the surest first; a direction that is there already counts once."""
    basis_HK = torch.zeros(size, 0, dtype=torch.float64)
    for space_HK in spaces:
        beside_HK = space_HK.double() - basis_HK @ (basis_HK.T @ space_HK.double())
        vectors, values, _ = torch.linalg.svd(beside_HK, full_matrices=False)
        basis_HK = torch.cat([basis_HK, vectors[:, values > ANOTHER]], dim=1)
    return basis_HK
