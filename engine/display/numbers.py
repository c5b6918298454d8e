"""How a figure looks: with its interval, as a p-value, as ranges of layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from judging.statistics import Estimate


def number(value: float | None) -> str:
    """Three digits, or a dash where there is no number."""
    return "-" if value is None else f"{value:.3f}"


def estimate(table: Mapping[str, Any] | None, digits: int = 3) -> str:
    """An estimate of a JSON file as text; a dash where there is none."""
    return "-" if table is None else Estimate(**table).text(digits)


def p_value(value: float | None) -> str:
    """Four digits, or that it is smaller; a dash where there is none."""
    return "-" if value is None or value != value else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def layer_ranges(layers: Sequence[int]) -> str:
    """`4-9, 12` for 4, 5, ... 9 and 12."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def published(figures: Mapping[str, Any] | None) -> str:
    """The study's figures for a variant; a dash where there are none."""
    if not figures:
        return "-"
    parts = [f"{name} {figures[name]:.3f}" for name in ("compliance", "coherence") if figures.get(name) is not None]
    return ", ".join([*parts, *([figures["note"]] if figures.get("note") else [])]) or "-"
