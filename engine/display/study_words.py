"""Sentences on what a study found, for the terminal and for the report."""

from collections.abc import Sequence

from engine.display.numbers import estimate, p_value
from engine.display.table import Row

MEANINGS = {
    "one direction": "the layers' mean differences share one line",
    "low rank": "the layers' directions span a small subspace, not one direction",
    "rotating": "no small subspace holds the layers' directions: they turn from layer to layer",
    "more than one": "more than one direction, and the data do not say whether a small subspace holds them",
    "cannot tell": "these pairs do not say whether it is one direction or more; more pairs would",
}

MOST_NAMED = 3  # kinds


def structure_sentence(geometry: Row) -> str:
    """Whether the layers' means share a line, with its strength, and what the stream makes of shuffled labels."""
    structure = geometry["structure"]
    if structure is None:
        return "Do the layers' means share a line? No two layers have a reliable direction. Use more pairs, or pairs that differ."
    first, size = estimate(structure["first_share"], 2), estimate(structure["dimensions"], 0)
    layers, shared = structure["layers"], structure["longest_shared"]
    plain = structure["answer"] in ("one direction", "low rank", "rotating")
    agreed = f"; {structure['support']:.0%} of resamples give the same answer" if plain else ""
    return (
        f"Do the layers' means share a line? {structure['answer'].capitalize()} ({MEANINGS[structure['answer']]}). "
        f"Over {len(layers)} layers ({layers[0]} to {layers[-1]}) the first component holds {first} of the unit directions "
        f"(0.9 would be one direction), 90 % takes {size}, effective rank {structure['effective_rank']['value']:.1f}; "
        f"p of one direction {structure['p_one']:.3f}{agreed}. "
        f"The longest run of layers that share one direction is {shared[0]} to {shared[1]}. "
        f"Shuffled labels' first component holds {estimate(geometry['shuffled_spectrum'][0], 2)} of the directions as extracted, "
        f"the true labels' {geometry['unit_spectrum'][0]:.2f}: where these are close, the stream turns whatever it carries."
    )


PAIR_ANSWERS = {
    "no direction": "no mean difference that swapped labels do not give",
    "one direction": "one was found, and none beside it",
    "more than one": "{count} were found, so at least as many",
    "cannot tell": "{why}",
}


def pair_rank_sentences(geometry: Row) -> list[str]:
    """Whether single pairs refuse along one direction at a layer: a sentence for each of the run's layers."""
    lines = []
    for layer, found in geometry["pair_rank"].items():
        beside = max(found["directions"] - 1, 0)
        content = f"{beside} were found beside it, and content alone can make as many"
        answer = PAIR_ANSWERS[found["answer"]].format(
            count=found["directions"], why=content if found["p"] else "too few pairs or kinds to say"
        )
        lines.append(
            f"Is it one direction at layer {layer}, pair by pair? {found['answer'].capitalize()}: {answer} (p of the mean "
            f"difference {p_value(found['mean_p'])}{_second(found) if found['p'] else ''})."
        )
    return lines


def _second(found: Row) -> str:
    """What was found of a second direction, and the control."""
    second = f"; p of a second {p_value(found['p'][0])}, spread {found['spread'][0]:.2f} (usual {found['usual']:.2f})"
    return f"{second}; with the sides exchanged {found['reverse']} beside the mean"


def kind_sentences(geometry: Row) -> list[str]:
    """What the intervals are over, a warning where kinds are few, and the kinds with a direction of their own."""
    count, held = geometry["num_kinds"], geometry["num_kinds_held_out"]
    if count == geometry["num_pairs"]:
        lines = ["Intervals are over pairs: no two that made directions are of one kind (the column category)."]
    else:
        lines = [f"Intervals are over kinds of prompts: {count} made directions, {held} are held out."]
    lines += [geometry["kinds_note"]] if geometry["kinds_note"] else []
    for layer, kinds in geometry["kinds"].items():
        own = sorted((row["p"], kind) for kind, row in kinds.items() if row["p"] < 0.05)
        named = ", ".join(f"{kind} (cosine {kinds[kind]['cosine']:.2f}, p {p_value(p)})" for p, kind in own[:MOST_NAMED])
        if kinds:
            more = f" and {len(own) - MOST_NAMED} more" if len(own) > MOST_NAMED else ""
            lines.append(
                f"Kinds with a direction of their own at layer {layer}, of {len(kinds)}, p corrected: {named or 'none'}{more}."
            )
    return lines


def reading_sentences(reading: Row) -> list[str]:
    """Where each position reads what is asked and what is done best."""
    lines = []
    for what, meaning in (("asked", "undoable from answerable requests"), ("done", "declined from answered undoable requests")):
        for position, found in reading["positions"].items():
            if what in found:
                layer, value = best(found[what]["auroc"])
                chosen = f"at layer {layer}, its best of {len(found[what]['auroc'])} on these very requests"
                lines.append(f"{position} tells {meaning}, {chosen}: AUROC {estimate(value, 2)}{_within(found[what], layer)}")
    return [*lines, *([reading["kinds_note"]] if reading["kinds_note"] else [])]


def _within(found: Row, layer: int) -> str:
    """AUROC among prompts of one kind: pooled, a position can tell kinds that are declined more often from the others."""
    if not found["within_kinds"]:
        return ""
    kinds = found["within_kinds"]
    return f"; within kinds ({kinds} have both sides) {estimate(found['within_auroc'][layer], 2)}"


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
