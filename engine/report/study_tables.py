"""Tables of the studies: estimators, effects, angles, regrowth, length and KL."""

from collections.abc import Mapping
from typing import Any

from engine.display.ability import COLUMNS as BENCH_COLUMNS
from engine.display.ability import HOW_TO_READ, bench_cells, unpaired_lines
from engine.display.study_words import (
    compared_estimators,
    highest,
    layer_ranges,
    p_value,
    regrowth_rows,
    strongest,
    triple,
)
from engine.display.summary import number
from engine.report.tables import ACTING, Table, judge_note

Row = Mapping[str, Any]
MOST_LAYERS = 3


def effect_table(effect: Row, title: str) -> Table:
    """What each direction does when it is folded in."""
    rows = [
        [
            row["name"],
            row["kind"],
            str(row["k"] or "-"),
            *(triple(row[name], 3) for name in ACTING),
            triple(row.get("difference"), 3),
            p_value(row.get("p_holm")),
        ]
        for row in effect["rows"]
    ]
    columns = ["folded in", "kind", "k", *ACTING, "product less the base's", "p (Holm)"]
    return Table(
        title,
        columns,
        rows,
        f"The first {effect['rows'][0]['n']} test requests, which chose no layer. {judge_note(effect['judge'])}",
    )


def estimator_table(geometry: Row) -> Table | None:
    """Estimators at the run's own layers, three of them at most."""
    named = compared_estimators(geometry)
    if len(named) < 2:
        return None
    rows = [
        [
            name,
            str(layer),
            number(found["cosine_to_mean_difference"][layer]),
            triple(found["cohens_d"][layer]),
            number(found["train_cohens_d"][layer]),
            triple(found["auroc"][layer], 3),
        ]
        for name, found in named.items()
        for layer in geometry["layers"][:MOST_LAYERS]
    ]
    columns = ["estimator", "layer", "cosine to mean difference", "d, held out", "d, training pairs", "AUROC, held out"]
    return Table("Estimators at the run's layers", columns, rows)


def angle_table(geometry: Row) -> Table:
    """Principal angles between the subspaces of two halves of the pairs."""
    rows = [[size, ", ".join(f"{angle:.0f}" for angle in angles)] for size, angles in geometry["half_angles"].items()]
    note = "Median over random halves, degrees; a dimension that is only noise is near 90."
    return Table("Principal angles between two halves of the pairs", ["leading components", "angles"], rows, note)


def regrowth_table(regrowth: Row) -> Table:
    """What is left in each round."""
    rows = []
    for row in regrowth_rows(regrowth):
        layer = strongest(row)
        rows.append(
            [
                str(row["round"]),
                str(row["k"]),
                f"{triple(row['cohens_d'][layer])} (layer {layer})",
                triple(row["auroc"][layer]),
                number(highest(row.get("cosine_to_removed", [])[1:])),
                layer_ranges(row.get("recovered") or []) or "-",
                *(triple(row["behaviour"][name], 3) for name in ("declined", "compliance", "coherence")),
            ]
        )
    columns = ["round", "removed", "largest d left", "AUROC there", "cosine to removed", "layers that recover"]
    note = (
        "Largest: over layers, on the held-out pairs themselves. Cosine: the highest over layers. Recover: at least half of the "
        f"base's d, and an AUROC whose interval is above 0.5. {judge_note(regrowth['judge'])}"
    )
    return Table("What grows back, round by round", [*columns, "declined", "compliance", "coherence"], rows, note)


def length_table(behaviour: Row) -> Table:
    """Length, repetition and where the declined share settles."""
    settled = {(row["variant"], row["kind"]): row["settled_at"] for row in behaviour["by_tokens"]}
    rows = [
        [
            row["variant"],
            row["kind"],
            str(row["n"]),
            *(triple(row[name]) for name in ("tokens", "cut", "repetition", "looping")),
            str(settled[row["variant"], row["kind"]] or "only at the end"),
        ]
        for row in behaviour["length"]
    ]
    columns = [
        "variant",
        "requests",
        "n",
        "tokens",
        "cut at the limit",
        "repeated 4-grams",
        "looping",
        "declined settles at token",
    ]
    return Table("Length and repetition", columns, rows)


def divergence_table(behaviour: Row) -> Table:
    """KL between base and variant."""
    rows = [
        [row["kind"], str(row["n"]), *(triple(row[name], 3) for name in ("first_token", "per_token", "per_response"))]
        for row in behaviour["kl"]
    ]
    columns = ["requests", "n", "first token", "a token, mean", "a response, sum"]
    return Table("KL(base || variant) along the base's responses, nats", columns, rows)


def bench_table(bench: Row) -> Table:
    """Ability: base and variants on lm-eval's tasks, document by document."""
    options = bench["options"]
    shots = "the task's own" if options["num_fewshot"] is None else options["num_fewshot"]
    asked = f"limit {options['limit'] or 'none'}, few-shot {shots}"
    note = f"lm-eval on the same documents ({asked}). {HOW_TO_READ}"
    return Table("Ability (lm-eval)", BENCH_COLUMNS, bench_cells(bench), " ".join([note, *unpaired_lines(bench)]))
