"""An audit of what a model can write: are directions missing? Reads a checkpoint's writers, with or without its base.

Without a base: G = sum of W W^T over the writers, each scaled to mean eigenvalue 1, in float64. A direction folded out of
them is an eigenvector of G with almost no eigenvalue, orders of magnitude below the next. In an untouched model the spectrum
starts smoothly. G of every block alone finds edits of some blocks.

With a base: the differences D = W' - W share their left space, and W' has (1 - alpha) of W's part along it.
"""
# H = hidden size, I = a writer's vectors, T = writers, K = directions

from dataclasses import dataclass

import torch
from torch import Tensor

from editing.apply import along
from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.plan import PlannedTensor, plan_edit

MAX_RANK = 32  # more directions than this are not looked for
GAP = 4.0  # an eigenvalue this many times below the next sets those before it apart
CLEAR = 0.05  # of the mean: erased, not merely small
VECTORS_PER_DIM = 1.5  # writers with fewer vectors than this times H have a null space of their own
TINY_GAIN = 1e-4  # a norm's gain below this is taken for this
WEAKENED = 0.3  # of the mean energy along a direction: at least partly gone


@dataclass(frozen=True)
class Finding:
    """The verdict on a checkpoint: `erased directions`, `none found` or `cannot tell`, with its evidence in words.

    directions_HK: recovered directions, orthonormal.
    shares: by block, the mean energy that its writers keep along them; 1 is an average direction's.
    eigenvalues: the smallest of G over their mean.
    alpha: the estimated share removed; None where it cannot be told.
    """

    verdict: str
    count: int
    directions_HK: Tensor
    shares: dict[int, float]
    eigenvalues: list[float]
    alpha: float | None
    evidence: list[str]


def audit(checkpoint: Checkpoint, base: Checkpoint | None = None) -> Finding:
    """The directions that were projected out of a checkpoint's attention and MLP output projections, if any.

    base: the checkpoint it was edited from, where it is at hand. Raises EditError where it is another model's.
    """
    writers = plan_edit(checkpoint).edited
    return _audit_alone(checkpoint, writers) if base is None else _audit_against(checkpoint, base, writers)


def gram(weight: Tensor, axis: int) -> Tensor:
    """W W^T over the vectors along the hidden axis, float64 (H, H), on the GPU where there is one."""
    vectors_NH = weight.movedim(axis, -1).flatten(0, -2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total_HH = torch.zeros(vectors_NH.shape[1], vectors_NH.shape[1], dtype=torch.float64, device=device)
    for block_BH in vectors_NH.split(4096):
        block = block_BH.to(device, torch.float64)
        total_HH.addmm_(block.T, block)
    return total_HH.cpu()


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


def _audit_alone(checkpoint: Checkpoint, writers: tuple[PlannedTensor, ...]) -> Finding:
    size = checkpoint.hidden_size
    pools: dict[str, _Pool] = {}
    spaces: list[Tensor] = []
    # Behind norms of different gains the same direction has another image in every matrix, so each is looked at alone.
    pooled = all(tensor.gain is None for tensor in writers)
    groups = 0
    for layer, tensors in _by_layer(writers).items():
        for tensor in tensors:
            alone = _Pool(size)
            weight = checkpoint.read(tensor.name)
            for pool in (alone, *(pools.setdefault(name, _Pool(size)) for name in ("all", tensor.role, f"block {layer}"))):
                pool.add(weight, tensor)
            spaces += [_before_gain(checkpoint, tensor, space) for space in alone.null_space()]
        block = pools.pop(f"block {layer}")
        spaces += block.null_space() if pooled else []
        groups += len(tensors) + 1
    if pooled:
        spaces += [space for pool in pools.values() for space in pool.null_space()]
    smallest = pools["all"].smallest()
    if not spaces:
        return _nothing_found(pools["all"], smallest)
    directions_HK = _merge(spaces)
    shares = _shares(checkpoint, writers, directions_HK)
    touched = [share for share in shares.values() if share < WEAKENED]
    alpha = 1 - (sum(touched) / len(touched)) ** 0.5 if touched else None
    evidence = [_spectrum(smallest), f"Seen in {len(spaces)} of {groups + len(pools)} groups of writers."]
    return Finding("erased directions", directions_HK.shape[1], directions_HK, shares, smallest, alpha, evidence)


def _before_gain(checkpoint: Checkpoint, tensor: PlannedTensor, space_HK: Tensor) -> Tensor:
    """Directions of the stream from a null space of W: v^T W = 0 means q^T diag(g) W = 0 for q = v / g."""
    if tensor.gain is None:
        return space_HK
    gain_H = checkpoint.read(tensor.gain).double() + tensor.gain_offset
    return torch.linalg.qr(space_HK / torch.where(gain_H.abs() > TINY_GAIN, gain_H, TINY_GAIN)[:, None])[0]


class _Pool:
    """A sum of unit-trace grams of some writers, and how many vectors they have."""

    def __init__(self, size: int) -> None:
        self.total_HH = torch.zeros(size, size, dtype=torch.float64)
        self.vectors = 0

    def add(self, weight: Tensor, tensor: PlannedTensor) -> None:
        self.total_HH += _unit_trace(gram(weight, tensor.axis))
        self.vectors += weight.numel() // weight.shape[tensor.axis]

    @property
    def is_wide(self) -> bool:
        """True where there are enough vectors to fill the hidden space by themselves."""
        return self.vectors >= VECTORS_PER_DIM * self.total_HH.shape[0]

    def null_space(self) -> list[Tensor]:
        """Directions (H, K) that stand apart below the rest, in a list; an empty list where none do."""
        if not self.is_wide:
            return []
        eigenvalues, eigenvectors = torch.linalg.eigh(self.total_HH)
        count = gap_count(eigenvalues)
        return [eigenvectors[:, :count]] if count else []

    def smallest(self) -> list[float]:
        """Eight smallest eigenvalues over their mean."""
        eigenvalues = torch.linalg.eigvalsh(self.total_HH)
        return [float(value) for value in eigenvalues[:8] / eigenvalues.mean()]


def _nothing_found(pool: _Pool, smallest: list[float]) -> Finding:
    nothing = torch.zeros(pool.total_HH.shape[0], 0, dtype=torch.float64)
    verdict = "none found" if pool.is_wide else "cannot tell"
    limits = (
        "Without the base, a share below about 0.8, a reflection (alpha = 2) or an edit of narrow writers alone does not show."
    )
    return Finding(verdict, 0, nothing, {}, smallest, None, [_spectrum(smallest), limits])


def _merge(spaces: list[Tensor]) -> Tensor:
    """An orthonormal basis of several spaces; directions found in more than one group count once."""
    directions, values, _ = torch.linalg.svd(torch.cat(spaces, dim=1), full_matrices=False)
    return directions[:, values > 0.5].contiguous()


def _audit_against(checkpoint: Checkpoint, base: Checkpoint, writers: tuple[PlannedTensor, ...]) -> Finding:
    size = checkpoint.hidden_size
    if base.hidden_size != size or set(base.tensors) - {"lm_head.weight"} != set(checkpoint.tensors) - {"lm_head.weight"}:
        raise EditError(f"{base.directory} is not the base of {checkpoint.directory}: their tensors differ in names or width.")
    changed = [tensor for tensor in writers if not torch.equal(checkpoint.read(tensor.name), base.read(tensor.name))]
    if not changed:
        nothing = torch.zeros(size, 0, dtype=torch.float64)
        return Finding("none found", 0, nothing, {}, [], None, ["No attention or MLP output projection differs from the base's."])
    directions_HK, spectrum = _difference_space(checkpoint, base, changed)
    held = f"{directions_HK.shape[1]} shared left direction(s) hold {sum(spectrum[: directions_HK.shape[1]]):.0%} of the change"
    evidence = [f"{len(changed)} of {len(writers)} writers differ; {held}."]
    return _judge_difference(checkpoint, base, writers, directions_HK, evidence, spectrum)


def _difference_space(checkpoint: Checkpoint, base: Checkpoint, changed: list[PlannedTensor]) -> tuple[Tensor, list[float]]:
    """Directions of the stream that the differences share, and the leading shares of the differences' energy."""
    total = torch.zeros(checkpoint.hidden_size, checkpoint.hidden_size, dtype=torch.float64)
    for tensor in changed:
        total += _unit_trace(gram(_written(checkpoint, tensor) - _written(base, tensor), tensor.axis))
    return _leading_space(total)


def _leading_space(gram_HH: Tensor) -> tuple[Tensor, list[float]]:
    eigenvalues, eigenvectors = torch.linalg.eigh(gram_HH)
    descending = eigenvalues.flip(0) / eigenvalues.sum()
    count = _leading_count(descending)
    return eigenvectors.flip(1)[:, :count].contiguous(), [float(value) for value in descending[:8]]


def _leading_count(shares: Tensor) -> int:
    """Leading eigenvalues before the largest relative step, among the first MAX_RANK."""
    limit = min(MAX_RANK, shares.numel() // 4)
    steps = shares[:limit].clamp_min(1e-12) / shares[1 : limit + 1].clamp_min(1e-12)
    best = int(steps.argmax())
    return best + 1 if float(steps[best]) > GAP else 0


def _judge_difference(
    checkpoint: Checkpoint,
    base: Checkpoint,
    writers: tuple[PlannedTensor, ...],
    directions_HK: Tensor,
    evidence: list[str],
    spectrum: list[float],
) -> Finding:
    if directions_HK.shape[1] == 0:
        evidence.append("The differences share no few directions: an ordinary fine-tune, not a projection.")
        return Finding("none found", 0, directions_HK, {}, spectrum, None, evidence)
    before, after, across = _energies(checkpoint, base, writers, directions_HK)
    ratio = (sum(after.values()) / max(sum(before.values()), 1e-30)) ** 0.5
    signed = sum(across.values()) / max(sum(before.values()), 1e-30)
    coherent = abs(abs(signed) - ratio) < 0.1  # W' = (1 - alpha) W along the directions, block by block
    if not coherent or abs(1 - signed) < 0.02:
        evidence.append(
            "Along them the weights are not a share of the base's: the change adds a direction, it does not remove one."
        )
        return Finding("none found", 0, directions_HK[:, :0], {}, spectrum, None, evidence)
    shares = {layer: after[layer] / before[layer] for layer in before}
    evidence.append(f"Along them W' is {signed:.3f} of W.")
    return Finding("erased directions", directions_HK.shape[1], directions_HK, shares, spectrum, 1 - signed, evidence)


def _energies(
    checkpoint: Checkpoint, base: Checkpoint, writers: tuple[PlannedTensor, ...], directions_HK: Tensor
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """Per block, over its changed writers: ||Q^T W||^2, ||Q^T W'||^2 and their inner product."""
    before: dict[int, float] = {}
    after: dict[int, float] = {}
    across: dict[int, float] = {}
    for tensor in writers:
        old_weight, new_weight = _written(base, tensor), _written(checkpoint, tensor)
        if tensor.layer is None or torch.equal(old_weight, new_weight):
            continue
        old = along(old_weight, directions_HK, tensor.axis).double()
        new = along(new_weight, directions_HK, tensor.axis).double()
        for table, value in ((before, old.square().sum()), (after, new.square().sum()), (across, (old * new).sum())):
            table[tensor.layer] = table.get(tensor.layer, 0.0) + float(value)
    return before, after, across


def _shares(checkpoint: Checkpoint, writers: tuple[PlannedTensor, ...], directions_HK: Tensor) -> dict[int, float]:
    """Per block, the smallest mean energy that one of its writers keeps along the directions, 1 being average."""
    shares: dict[int, float] = {}
    for layer, tensors in _by_layer(writers).items():
        for tensor in tensors:
            weight = _written(checkpoint, tensor)
            energy = along(weight, directions_HK, tensor.axis).double().square().sum(0).mean() * weight.shape[tensor.axis]
            share = float(energy) / max(float(weight.double().square().sum()), 1e-30)
            shares[layer] = min(shares.get(layer, share), share)
    return shares


def _written(checkpoint: Checkpoint, tensor: PlannedTensor) -> Tensor:
    """A writer as it reaches the residual stream, in float32: times the gain of the norm that may follow it."""
    weight = checkpoint.read(tensor.name).float()
    if tensor.gain is None:
        return weight
    gain_H = checkpoint.read(tensor.gain).float() + tensor.gain_offset
    return weight * (gain_H[:, None] if tensor.axis == 0 else gain_H)


def _by_layer(writers: tuple[PlannedTensor, ...]) -> dict[int, list[PlannedTensor]]:
    layers: dict[int, list[PlannedTensor]] = {}
    for tensor in writers:
        if tensor.layer is not None:
            layers.setdefault(tensor.layer, []).append(tensor)
    return layers


def _unit_trace(gram_HH: Tensor) -> Tensor:
    return gram_HH / gram_HH.trace().clamp_min(1e-30)


def _spectrum(values: list[float]) -> str:
    return "Smallest eigenvalues of the writers' sum over their mean: " + ", ".join(f"{value:.2g}" for value in values) + "."
