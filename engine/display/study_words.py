"""What a study found, in sentences: for the terminal and for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MEANINGS = {
    "one direction": "the layers share one direction",
    "low rank": "the layers' directions span a small subspace, not one direction",
    "rotating": "no small subspace holds the layers' directions: they turn from layer to layer",
    "more than one": "more than one direction, and the data do not say whether a small subspace holds them",
    "cannot tell": "these pairs do not say whether it is one direction or more; more pairs would",
}


def structure_sentence(geometry: Row) -> str:
    """The answer to "one direction or many", with its strength, and what the stream makes of shuffled labels."""
    structure = geometry["structure"]
    if structure is None:
        return "One direction or many: no two layers have a reliable direction. Use more pairs, or pairs that differ."
    first, size = structure["first_share"], structure["dimensions"]
    layers, shared = structure["layers"], structure["longest_shared"]
    plain = structure["answer"] in ("one direction", "low rank", "rotating")
    agreed = f"; {structure['support']:.0%} of resamples give the same answer" if plain else ""
    return (
        f"One direction or many: {structure['answer']} ({MEANINGS[structure['answer']]}). Over {len(layers)} layers "
        f"({layers[0]} to {layers[-1]}) the first component holds {first[0]:.2f} [{first[1]:.2f}, {first[2]:.2f}] of the unit "
        f"directions (0.9 would be one direction), 90 % takes {size[0]:.0f} [{size[1]:.0f}, {size[2]:.0f}], effective rank "
        f"{structure['effective_rank'][0]:.1f}; p of one direction {structure['p_one']:.3f}{agreed}. The longest run of layers "
        f"that share one direction is {shared[0]} to {shared[1]}. "
        f"Shuffled labels' first component holds {triple(geometry['shuffled_spectrum'][0])} of the directions as extracted, the "
        f"true labels' {geometry['unit_spectrum'][0]:.2f}: where these are close, the stream turns whatever it carries."
    )


def reading_sentences(reading: Row) -> list[str]:
    """Where each position reads what is asked and what is done best."""
    lines = []
    for what, meaning in (("asked", "undoable from answerable requests"), ("done", "declined from answered undoable requests")):
        for position, found in reading["positions"].items():
            if what in found:
                layer, value = best(found[what]["auroc"])
                chosen = f"at layer {layer}, its best of {len(found[what]['auroc'])} on these very requests"
                lines.append(f"{position} tells {meaning}, {chosen}: AUROC {triple(value)}")
    return lines


def best(rows: list[list[float | None]]) -> tuple[int, list[float | None]]:
    """The place whose value is highest, and its value with interval."""
    place = max(range(len(rows)), key=lambda index: -1.0 if rows[index][0] is None else float(rows[index][0] or 0))
    return place, rows[place]


def triple(value: Any, digits: int = 2) -> str:
    """`0.91 [0.87, 0.95]`, from [value, low, high] or a table of those; a dash where there is none."""
    if isinstance(value, Mapping):
        value = [value["value"], value["low"], value["high"]]
    if value is None or value[0] is None:
        return "-"
    if value[1] is None:
        return f"{value[0]:.{digits}f}"
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def layer_ranges(layers: Sequence[int]) -> str:
    """`4-9, 12` for 4, 5, ... 9 and 12."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def compared_estimators(geometry: Row) -> dict[str, Row]:
    """Every direction that was compared at the run's position, by name: estimators, then twins and unrelated prompts."""
    named = dict(geometry["positions"][geometry["position"]]["estimators"])
    if unrelated := geometry.get("unrelated"):
        named[f"twins, the first {unrelated['num_prompts']} pairs"] = unrelated["twins"]
        named[f"against {unrelated['num_prompts']} unrelated prompts"] = unrelated["unrelated"]
    return named


def strongest(row: Row) -> int:
    """The layer whose d on held-out pairs is largest."""
    return max(range(len(row["cohens_d"])), key=lambda layer: row["cohens_d"][layer][0] or 0)


def regrowth_rows(regrowth: Row) -> list[Row]:
    """Rounds, then controls, each with its name as `round`."""
    controls = {"random": "random directions", "shuffled": "shuffled labels"}
    return [*regrowth["rounds"], *(row | {"round": controls[name]} for name, row in regrowth["controls"].items())]


def p_value(value: float | None) -> str:
    """Four digits, or that it is smaller."""
    return "-" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def highest(values: Sequence[float | None]) -> float | None:
    """The largest of those that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)
