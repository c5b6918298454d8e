"""Synthetic residual streams with planted directions: the answer is known."""

import numpy as np

LAYERS, HIDDEN = 16, 96
TURN = 40.0  # degrees from layer to layer, each into a new dimension


def planted_directions(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Unit directions of every layer, (L, H): "1", "2", "3" of that rank, or "rotating"."""
    axes = np.linalg.qr(rng.standard_normal((HIDDEN, LAYERS)))[0].T
    if kind == "rotating":
        rows = [axes[0]]
        for layer in range(1, LAYERS):
            rows.append(np.cos(np.radians(TURN)) * rows[-1] + np.sin(np.radians(TURN)) * axes[layer])
        return np.array(rows)
    mixed = rng.standard_normal((LAYERS, int(kind)))
    if kind == "1":
        mixed = np.abs(mixed) + 0.5
    rows_LH = mixed @ axes[: int(kind)]
    return rows_LH / np.linalg.norm(rows_LH, axis=1, keepdims=True)


def differences(kind: str, pairs: int, seed: int, strength: float = 3.0) -> np.ndarray:
    """Paired differences (N, L, H): `strength` along the planted direction, and unit noise that the stream carries on."""
    rng = np.random.default_rng(seed)
    return noisy(planted_directions(kind, rng), pairs, rng, strength)


def noisy(planted_LH: np.ndarray, pairs: int, rng: np.random.Generator, strength: float = 3.0) -> np.ndarray:
    """The same, of directions that are given."""
    noise = np.zeros((pairs, LAYERS, HIDDEN))
    carried = rng.standard_normal((pairs, HIDDEN))
    for layer in range(LAYERS):
        noise[:, layer] = carried
        carried = 0.9 * carried + np.sqrt(1 - 0.9**2) * rng.standard_normal((pairs, HIDDEN))
    return (strength * planted_LH + noise) * np.linspace(1, 2, LAYERS)[:, None]


def kind_names(pairs: int, kinds: int) -> list[str]:
    """The kind of each pair, dealt in turn."""
    return [f"kind {pair % kinds}" for pair in range(pairs)]


def differences_of_kinds(
    pairs: int, kinds: int, icc: float, seed: int, *, strength: float = 3.0, by_layer: bool = False, planted: str = "1"
) -> np.ndarray:
    """Paired differences (N, L, H) whose noise is shared by the pairs of a kind for `icc` of its variance.

    by_layer: a kind's part is another in each layer; else the stream carries it on as it does the rest.
    """
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((kinds, LAYERS, HIDDEN)) if by_layer else carried(kinds, rng)
    noise = np.sqrt(1 - icc) * carried(pairs, rng) + np.sqrt(icc) * shared[np.arange(pairs) % kinds]
    return (strength * planted_directions(planted, rng) + noise) * np.linspace(1, 2, LAYERS)[:, None]


def carried(count: int, rng: np.random.Generator) -> np.ndarray:
    """Unit noise that the stream carries from layer to layer, (count, L, H)."""
    noise = np.zeros((count, LAYERS, HIDDEN))
    now = rng.standard_normal((count, HIDDEN))
    for layer in range(LAYERS):
        noise[:, layer] = now
        now = 0.9 * now + np.sqrt(1 - 0.9**2) * rng.standard_normal((count, HIDDEN))
    return noise


def sides_along(
    directions: int,
    pairs: int,
    kinds: int,
    icc: float,
    seed: int,
    *,
    strength: float = 3.0,
    massive: bool = False,
    of_kind: bool = False,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Declined and answered streams of one layer, (N, H), and kinds: each declined prompt lies `strength` along one of several
    orthogonal directions. Content that both share has unit variance, the difference's noise too, `icc` of it a kind's own.

    massive: content and noise fall off as a power of the component, the largest 6 times a unit.
    of_kind: all pairs of a kind lie along one direction.
    """
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0]
    scale_H = 6 * np.arange(1, HIDDEN + 1) ** -0.7 if massive else np.ones(HIDDEN)
    places = np.arange(pairs) % kinds
    chosen = rng.integers(0, directions, kinds)[places] if of_kind else rng.integers(0, directions, pairs)
    planted_KH = np.linalg.qr(rng.standard_normal((HIDDEN, directions)))[0].T
    content, own = rng.standard_normal((pairs, HIDDEN)), rng.standard_normal((2, pairs, HIDDEN)) * np.sqrt((1 - icc) / 2)
    shared = rng.standard_normal((kinds, HIDDEN))[places] * np.sqrt(icc)
    declined, answered = ((content + part) * scale_H @ axes for part in (shared + own[0], own[1]))
    return declined + strength * planted_KH[chosen], answered, kind_names(pairs, kinds)
