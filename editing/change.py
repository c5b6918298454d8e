"""The audit against a base: directions along which a checkpoint's writers are another share of the base's.

The change D = W' - W of a projection has few left directions, and along them W' is (1 - alpha) of W. So the leading directions
of D are taken, of all writers and of each role, block and tensor. W' is regressed on W along them: the slope is 1 - alpha. The
change off these directions says how much the weights moved anyway (noise, further training) and by which factor they were
scaled. A direction counts where its slope differs from that factor, and what the slope leaves is no more than that noise. Where
factors for each channel explain the change along it as well, it is no direction: channels were scaled or cut off.
"""
# H = hidden size, K = directions

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing.apply import along
from editing.checkpoint import Checkpoint
from editing.finding import AMPLIFIED, AXES, ERASED, NONE, REFLECTED, Finding, kind_of, named, near_axes, without_directions
from editing.plan import PlannedTensor
from editing.spectrum import AXIS, EVERYWHERE, Look, axes_in, beside_axes, by_layer, looks, merged, written

LEAST = 0.02  # a smaller share removed is none
LEFT = 0.01  # of the energy along a direction, that the slope may leave beside noise
TIMES_NOISE = 4.0  # the noise's own energy off the directions
STANDARD_ERRORS = 5.0
AS_WELL = 0.05  # of the change along a direction, that channels' factors may leave beyond what its slope leaves
IN_AXES = 0.25  # of a channel's unit vector in a space that channels' factors explain: the channel is named
TOO_LITTLE = 1e-4  # of an average direction's energy in the base: nothing there to be a share of
ROUNDING = 0.01  # a move of the weights that is not worth a word


@dataclass(frozen=True)
class Moments:
    """Sums over a look's writers, each divided by its base's energy: along K directions, and of everything.

    old, new: W W^T and W' W'^T along the directions, (K, K); cross: W' W^T; beside: of W' less each channel's share of W.
    size, change, product: of everything, the number of writers, ||D||^2 and <D, W>.
    vectors: the number of vectors.
    """

    old_KK: Tensor
    new_KK: Tensor
    cross_KK: Tensor
    beside_KK: Tensor
    size: float
    change: float
    product: float
    vectors: int

    def background(self) -> tuple[float, float]:
        """Off the directions: the factor by which W was scaled, and the rest of the change's energy over W's."""
        old, cross, new = (float(part.trace()) for part in (self.old_KK, self.cross_KK, self.new_KK))
        size = max(self.size - old, 1e-30)
        moved = (self.product - (cross - old)) / size
        return 1 + moved, max((self.change - (new - 2 * cross + old)) / size - moved**2, 0.0)


@dataclass(frozen=True)
class Share:
    """Directions (H, K) along which W' is (1 - alpha) of W in one look, and the noise beside.

    kind: as `kind_of` says; `small channels` where channels' own factors explain the change as well.
    """

    look: Look
    kind: str
    space_HK: Tensor
    alpha: float
    noise: float
    factor: float


def audit_change(checkpoint: Checkpoint, base: Checkpoint, writers: Sequence[PlannedTensor]) -> Finding:
    """What the change from the base took from the writers' directions, or gave them."""
    changed = [tensor for tensor in writers if not torch.equal(checkpoint.read(tensor.name), base.read(tensor.name))]
    size, candidates = checkpoint.hidden_size, []
    spectrum: list[float] = []
    for look, pool in looks(changed, size, lambda tensor: written(checkpoint, tensor) - written(base, tensor)):
        space_HK, shares = pool.leading()
        candidates += [(look, space_HK)] if space_HK.shape[1] else []
        spectrum = shares if look.breadth == EVERYWHERE else spectrum
    candidates.sort(key=lambda candidate: candidate[0].breadth)
    found = [share for look, space_HK in candidates for share in shares_of(checkpoint, base, look, space_HK)]
    evidence = [f"{len(changed)} of {len(writers)} writers differ."]
    if not found:
        return without_directions(NONE, size, spectrum, [], [*evidence, _why_not(bool(changed), bool(candidates))])
    return _verdict(checkpoint, base, changed, found, evidence, spectrum)


def shares_of(checkpoint: Checkpoint, base: Checkpoint, look: Look, space_HK: Tensor) -> list[Share]:
    """Directions of a space along which a look's writers are another share of the base's; by kind, with their mean alpha."""
    moments = moments_of(checkpoint, base, look, space_HK)
    factor, noise = moments.background()
    least = LEAST + STANDARD_ERRORS * (noise / moments.vectors) ** 0.5
    kinds: dict[str, list[tuple[Tensor, float]]] = {}
    for coordinates_K in _slopes(moments):
        parts = (moments.old_KK, moments.new_KK, moments.cross_KK, moments.beside_KK)
        old, new, cross, beside = (float(coordinates_K @ part_KK @ coordinates_K) for part_KK in parts)
        if old < TOO_LITTLE * moments.size / space_HK.shape[0]:
            continue
        slope = cross / old
        left = new / old - slope**2
        excess = left - TIMES_NOISE * noise
        if abs(slope - factor) > least and left < LEFT + TIMES_NOISE * noise and excess < (slope - factor) ** 2:
            by_channels = beside / old < left + AS_WELL * (slope - factor) ** 2
            kind = AXES if by_channels else kind_of(1 - slope)
            kinds.setdefault(kind, []).append((space_HK @ coordinates_K, 1 - slope))
    return [
        Share(look, kind, torch.stack([one[0] for one in some], dim=1), sum(one[1] for one in some) / len(some), noise, factor)
        for kind, some in kinds.items()
    ]


def moments_of(checkpoint: Checkpoint, base: Checkpoint, look: Look, space_HK: Tensor) -> Moments:
    """The moments of a look's writers along a space."""
    rank = space_HK.shape[1]
    sums_KK = torch.zeros(4, rank, rank, dtype=torch.float64)
    change, product, vectors = 0.0, 0.0, 0
    for tensor in look.tensors:
        old, new = written(base, tensor), written(checkpoint, tensor)
        energy = max(float(old.double().square().sum()), 1e-30)
        old_NK, new_NK = (along(weight, space_HK, tensor.axis).double() for weight in (old, new))
        beside_NK = new_NK - along(scaled_by_channel(old, new, tensor.axis), space_HK, tensor.axis).double()
        parts = (old_NK.T @ old_NK, new_NK.T @ new_NK, new_NK.T @ old_NK, beside_NK.T @ beside_NK)
        sums_KK += torch.stack(parts) / energy
        difference = (new - old).double()
        change += float(difference.square().sum()) / energy
        product += float((difference * old).sum()) / energy
        vectors += len(old_NK)
    old_KK, new_KK, cross_KK, beside_KK = sums_KK
    return Moments(old_KK, new_KK, cross_KK, beside_KK, float(len(look.tensors)), change, product, vectors)


def scaled_by_channel(old: Tensor, new: Tensor, axis: int) -> Tensor:
    """W with every channel times the factor that brings it nearest to W'."""
    others = tuple(dim for dim in range(old.dim()) if dim != axis % old.dim())
    product, size = (old * new).sum(others, keepdim=True), old.square().sum(others, keepdim=True)
    return old * (product / size.clamp_min(1e-30))


def _slopes(moments: Moments) -> Tensor:
    """Coordinates, a row each, of the directions of a space whose slopes differ: the regression's principal axes, (K, K)."""
    slopes_KK = moments.cross_KK @ torch.linalg.pinv(moments.old_KK, hermitian=True)
    return torch.linalg.eigh(slopes_KK + slopes_KK.T)[1].T


def _verdict(
    checkpoint: Checkpoint,
    base: Checkpoint,
    changed: Sequence[PlannedTensor],
    found: list[Share],
    evidence: list[str],
    spectrum: list[float],
) -> Finding:
    size, axes = checkpoint.hidden_size, set()
    kinds: dict[str, list[Share]] = {ERASED: [], REFLECTED: [], AMPLIFIED: []}
    spaces: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for share in found:
        channels = axes_in(share.space_HK, IN_AXES if share.kind == AXES else AXIS)
        axes |= set(channels)
        rest_HK = beside_axes(share.space_HK, channels)
        if share.kind != AXES and rest_HK.shape[1]:
            kinds[share.kind].append(share)
            spaces[share.kind].append(rest_HK)
    directions = {kind: merged(some, size) for kind, some in spaces.items() if some}
    if axes:
        evidence.append(f"The change has a share of its own at {named(sorted(axes))}: axes of the stream, not directions.")
    evidence += _background_sentences(found)
    if not directions:
        return without_directions(NONE, size, spectrum, sorted(axes), evidence)
    verdict, directions_HK = next(iter(directions.items()))
    broadest = min(share.look.breadth for share in kinds[verdict])
    alphas = [share.alpha for share in kinds[verdict] if share.look.breadth == broadest]
    alpha = sum(alphas) / len(alphas)
    evidence.append(f"Along them W' is {1 - alpha:.3f} of W{_place(kinds[verdict], broadest)}.")
    evidence += near_axes(directions_HK)
    evidence += [f"Also {kind}: {some_HK.shape[1]}." for kind, some_HK in directions.items() if kind != verdict]
    shares = change_shares(checkpoint, base, changed, directions_HK)
    return Finding(verdict, directions_HK.shape[1], directions_HK, shares, spectrum, alpha, sorted(axes), evidence)


def change_shares(
    checkpoint: Checkpoint, base: Checkpoint, changed: Sequence[PlannedTensor], directions_HK: Tensor
) -> dict[int, float]:
    """Per block with changed writers, the least energy kept along a direction of their span, over the base's."""
    shares = {}
    for layer, tensors in by_layer(changed).items():
        grams = []
        for model in (base, checkpoint):
            parts = [along(written(model, tensor), directions_HK, tensor.axis).double() for tensor in tensors]
            grams.append(sum((part.T @ part for part in parts), torch.zeros(())))
        ratios = torch.linalg.eigvals(torch.linalg.pinv(grams[0], hermitian=True) @ grams[1]).real
        shares[layer] = float(ratios.min().clamp_min(0))
    return shares


def _place(shares: list[Share], broadest: int) -> str:
    count = len([share for share in shares if share.look.breadth == broadest])
    return "" if broadest == EVERYWHERE else f", in {count} groups of writers that were looked at alone"


def _background_sentences(found: list[Share]) -> list[str]:
    surest = found[0]
    sentences = []
    if surest.noise**0.5 > ROUNDING:
        sentences.append(f"Beside that the weights moved by {surest.noise**0.5:.0%} of their size: noise, or further training.")
    if abs(surest.factor - 1) > LEAST:
        sentences.append(f"All else is {surest.factor:.3f} of the base's.")
    return sentences


def _why_not(is_changed: bool, has_candidates: bool) -> str:
    if not is_changed:
        return "No attention or MLP output projection differs from the base's."
    if has_candidates:
        return "Along the directions of the change the weights are no share of the base's: it adds directions, it removes none."
    return "The change shares no few directions: fine-tuning, noise or scaling, not a projection."
