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
