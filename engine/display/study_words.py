"""Sentences on what a study found, for the terminal and for the report."""

from collections.abc import Sequence

from engine.display.numbers import estimate
from engine.display.table import Row

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
    first, size = estimate(structure["first_share"], 2), estimate(structure["dimensions"], 0)
    layers, shared = structure["layers"], structure["longest_shared"]
    plain = structure["answer"] in ("one direction", "low rank", "rotating")
    agreed = f"; {structure['support']:.0%} of resamples give the same answer" if plain else ""
    return (
        f"One direction or many: {structure['answer']} ({MEANINGS[structure['answer']]}). Over {len(layers)} layers "
        f"({layers[0]} to {layers[-1]}) the first component holds {first} of the unit directions (0.9 would be one direction), "
        f"90 % takes {size}, effective rank {structure['effective_rank']['value']:.1f}; p of one direction "
        f"{structure['p_one']:.3f}{agreed}. The longest run of layers that share one direction is {shared[0]} to {shared[1]}. "
        f"Shuffled labels' first component holds {estimate(geometry['shuffled_spectrum'][0], 2)} of the directions as extracted, "
        f"the true labels' {geometry['unit_spectrum'][0]:.2f}: where these are close, the stream turns whatever it carries."
    )


def reading_sentences(reading: Row) -> list[str]:
    """Where each position reads what is asked and what is done best."""
    lines = []
    for what, meaning in (("asked", "undoable from answerable requests"), ("done", "declined from answered undoable requests")):
        for position, found in reading["positions"].items():
            if what in found:
                layer, value = best(found[what]["auroc"])
                chosen = f"at layer {layer}, its best of {len(found[what]['auroc'])} on these very requests"
                lines.append(f"{position} tells {meaning}, {chosen}: AUROC {estimate(value, 2)}")
    return lines


def best(rows: Sequence[Row]) -> tuple[int, Row]:
    """The place whose value is highest, and its estimate."""
    place = max(range(len(rows)), key=lambda index: -1.0 if rows[index]["value"] is None else float(rows[index]["value"]))
    return place, rows[place]


def compared_estimators(geometry: Row) -> dict[str, Row]:
    """Every direction that was compared at the run's position, by name: estimators, then twins and unrelated prompts."""
    named = dict(geometry["positions"][geometry["position"]]["estimators"])
    if unrelated := geometry.get("unrelated"):
        named[f"twins, the first {unrelated['num_prompts']} pairs"] = unrelated["twins"]
        named[f"against {unrelated['num_prompts']} unrelated prompts"] = unrelated["unrelated"]
    return named


def strongest(row: Row) -> int:
    """The layer whose d on held-out pairs is largest."""
    return max(range(len(row["cohens_d"])), key=lambda layer: row["cohens_d"][layer]["value"] or 0)


def regrowth_rows(regrowth: Row) -> list[Row]:
    """Rounds, then controls, each with its name as `round`."""
    controls = {"random": "random directions", "shuffled": "shuffled labels"}
    return [*regrowth["rounds"], *(row | {"round": controls[name]} for name, row in regrowth["controls"].items())]


def norms_notes(found: Row) -> list[str]:
    """A note, in a list, where hooks projected what norms put out, which folded weights do up to a factor; else no note."""
    note = (
        "This model's writes pass a norm: hooks project what the norm puts out. Folded weights (the screen, the rollouts) write "
        "that vector up to a factor, because the norm divides by the size of the edited projection: editing/README.md, Behind a "
        "norm."
    )
    return [note] if found.get("norms") else []


def highest(values: Sequence[float | None]) -> float | None:
    """The largest of those that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)
