"""Tables of the studies, for the terminal and for the report."""

from collections.abc import Mapping
from typing import Any

from engine.display.numbers import estimate, layer_ranges, number, p_value
from engine.display.run_tables import ACTING, calibration_line
from engine.display.study_words import (
    compared_estimators,
    highest,
    kind_sentences,
    norms_notes,
    pair_rank_sentences,
    reading_sentences,
    regrowth_rows,
    strongest,
    structure_sentence,
)
from engine.display.table import Row, Table, View

BRACKETS = "In brackets: 95 % intervals. Layers: resid_pre; the last is the last block's output."
MOST_LAYERS = 3


def extract_view(found: Row) -> View:
    """Separability and stability by layer, both answers on one direction, and what else was measured."""
    geometry = found["geometry"]
    head = (
        f"{geometry['variant']}: {geometry['model']}, position {geometry['position']}, {geometry['num_pairs']} pairs, "
        f"{geometry['num_held_out']} held out"
    )
    compared = estimator_table(geometry)
    lines = [BRACKETS, *kind_sentences(geometry), structure_sentence(geometry), *pair_rank_sentences(geometry)]
    if "padded" in found:
        cosines = [value for value in found["padded"]["cosine"] if value is not None]
        lines.append(f"Naive padded batches: cosine to exact extraction {min(cosines):.3f} to {max(cosines):.3f} over layers.")
    lines += reading_sentences(found["reading"]) if "reading" in found else []
    effect = [effect_table(found["effect"])] if "effect" in found else []
    return [head, layer_table(geometry), *([compared] if compared else []), *lines, *effect]


def layer_table(geometry: Row) -> Table:
    """Layer by layer: how far the direction separates held-out pairs, and how stable it is."""
    own = geometry["positions"][geometry["position"]]
    mean = own["estimators"]["mean_difference"]
    rows = []
    for layer in range(len(mean["cohens_d"])):
        stable = geometry["stability"].get(str(layer))
        enough = stable and stable["enough"]
        training = mean["train_cohens_d"][layer]
        rows.append(
            [
                str(layer),
                estimate(mean["cohens_d"][layer], 2),
                "-" if training is None else f"{training:.2f}",
                estimate(mean["auroc"][layer], 2),
                estimate(geometry["probe"]["held_out"][layer], 2),
                estimate(stable["split_half"], 2) if stable else "-",
                f"{enough:.0f}" if enough else "-",
                f"{stable['kinds_enough']:.0f}" if enough else "-",
            ]
        )
    columns = ["layer", "d, held out", "d, training", "AUROC", "probe", "split-half cosine", "pairs for 0.95", "kinds for 0.95"]
    return Table("", columns, rows)


def pair_rank_table(geometry: Row) -> Table:
    """Directions beside the mean difference at the run's layers: each that was tried, up to the first that fails."""
    rows = []
    for layer, found in geometry["pair_rank"].items():
        tried = list(zip(found["p"], found["spread"], strict=True))[: max(found["directions"], 1)]
        for place, (p, spread) in enumerate(tried, 2):
            rows.append(
                [layer, found["answer"], str(place), number(spread), number(found["usual"]), p_value(p), str(found["reverse"])]
            )
        if not tried:
            rows.append([layer, found["answer"], "-", "-", "-", "-", "-"])
    columns = ["layer", "answer", "direction", "spread", "usual", "p", "sides exchanged"]
    notes = [
        "Direction 1 is the mean difference. Spread: variance of declined prompts over their twins', along a direction that "
        "other kinds chose; usual: in all directions. p from swapping whole kinds; the count ends at the first of 0.05 or more.",
        "Content that varies among declined prompts alone counts too: compare with what is found with the sides exchanged.",
    ]
    return Table("Is it one direction at a layer, pair by pair?", columns, rows, notes, keys=3)


def estimator_table(geometry: Row) -> Table | None:
    """Estimators at the run's own layers, three of them at most; None where there is one."""
    named = compared_estimators(geometry)
    if len(named) < 2:
        return None
    rows = [
        [
            name,
            str(layer),
            number(found["cosine_to_mean_difference"][layer]),
            estimate(found["cohens_d"][layer], 2),
            number(found["train_cohens_d"][layer]),
            estimate(found["auroc"][layer]),
        ]
        for name, found in named.items()
        for layer in geometry["layers"][:MOST_LAYERS]
    ]
    columns = ["estimator", "layer", "cosine to mean difference", "d, held out", "d, training pairs", "AUROC, held out"]
    return Table("Estimators at the run's layers", columns, rows, keys=2)


def angle_table(geometry: Row) -> Table:
    """Principal angles between the subspaces of two halves of the pairs."""
    rows = [[size, ", ".join(f"{angle:.0f}" for angle in angles)] for size, angles in geometry["half_angles"].items()]
    note = "Median over random halves, degrees; a dimension that is only noise is near 90."
    return Table("Principal angles between two halves of the pairs", ["leading components", "angles"], rows, [note])


def effect_table(effect: Row, title: str = "What each direction does, folded in") -> Table:
    """Compliance, coherence and product with each direction folded in, against the base."""
    rows = [
        [
            row["name"],
            row["kind"],
            str(row["k"] or "-"),
            *(estimate(row[name]) for name in ACTING),
            estimate(row.get("difference")),
            p_value(row.get("p_holm")),
        ]
        for row in effect["rows"]
    ]
    columns = ["folded in", "kind", "k", *ACTING, "product less the base's", "p (Holm)"]
    notes = [
        f"The first {effect['rows'][0]['n']} test requests, which chose no layer. p: sign flips kind by kind against the base, "
        "Holm over this table. Own layer: each estimator's strongest bypass on the held-out pairs.",
        judge_line(effect["judge"]),
    ]
    return Table(title, columns, rows, notes)


def ablation_view(found: Row) -> View:
    """Rates by alpha, with the edit at run time."""
    rows = [
        [
            row["mode"],
            row["subject"],
            row["site"] or "-",
            f"{row['alpha']:g}",
            row["requests"],
            *(estimate(row[name]) for name in ("declined", "compliance", "coherence")),
        ]
        for row in found["rows"]
    ]
    columns = ["mode", "what", "site", "alpha", "requests", "declined", "compliance", "coherence"]
    notes = [BRACKETS, f"{found['rows'][0]['n']} test requests a row.", *norms_notes(found), judge_line(found["judge"])]
    return [Table("", columns, rows, notes, keys=5)]


def regrowth_table(found: Row) -> Table:
    """A table of what is left after each round."""
    rows = []
    for row in regrowth_rows(found):
        layer = strongest(row)
        grown = [value for value in row.get("growth", []) if value["value"] is not None]
        rows.append(
            [
                str(row["round"]),
                str(row["k"]),
                f"{estimate(row['cohens_d'][layer], 2)} (layer {layer})",
                estimate(row["auroc"][layer], 2),
                number(highest(row.get("cosine_to_removed", [])[1:])),
                "-" if row.get("recovered") is None else layer_ranges(row["recovered"]) or "none",
                estimate(max(grown, key=lambda value: value["value"], default=None), 2),
                *(estimate(row["behaviour"][name]) for name in ("declined", "compliance", "coherence")),
            ]
        )
    columns = ["round", "removed", "largest d left", "AUROC there", "cosine to removed", "layers that recover", "most growth"]
    notes = [
        "Largest: over layers, on the held-out pairs themselves. Cosine: the highest over layers. Recover: at least half of the "
        "base's d, and an AUROC whose interval is above 0.5.",
        "Growth: length of the mean difference orthogonal to what was removed, over the base's; the most of all layers.",
        *norms_notes(found),
        f"{found['rounds'][0]['behaviour']['n']} test requests. {judge_line(found['judge'])}",
    ]
    return Table("What grows back, round by round", [*columns, "declined", "compliance", "coherence"], rows, notes)


def transfer_view(found: Row) -> View:
    """A view of the run's directions on another model, or beside a LoRA's writes."""
    return _adapter(found) if "rows" in found else _transfer(found)


def _adapter(found: Row) -> View:
    own = found["layers"][0]
    rows = [[row["tensor"], str(row["rank"]), number(row["cosine"][own]), number(max(row["cosine"]))] for row in found["rows"]]
    note = f"Random directions: |cos| {found['random'][0]:.3f} in the median, 97.5 % below {found['random'][1]:.3f}."
    return [Table("", ["adapted tensor", "rank", f"|cos| to layer {own}", "highest |cos|"], rows, [note])]


def _transfer(found: Row) -> View:
    rows = [
        [str(layer), number(found["cosine"][layer]), *(estimate(found[side]["auroc"][layer], 2) for side in ("run", "own"))]
        for layer in range(1, len(found["cosine"]))
    ]
    return [Table("", ["layer", "cosine", "AUROC, transferred", "AUROC, its own"], rows), effect_table(found["effect"])]


def behaviour_view(found: Row) -> View:
    """KL, length, repetition, and how many tokens a declined share needs."""
    note = "Settles: within 0.02 of the last, by the rules."
    return [divergence_table(found), length_table(found), note]


def divergence_table(found: Row) -> Table:
    """KL between base and variant."""
    rows = [
        [row["kind"], str(row["n"]), *(estimate(row[name]) for name in ("first_token", "per_token", "per_response"))]
        for row in found["kl"]
    ]
    columns = ["requests", "n", "first token", "a token, mean", "a response, sum"]
    return Table("KL(base || variant) along the base's own responses, nats", columns, rows)


def length_table(found: Row) -> Table:
    """Length, repetition and where the declined share settles."""
    settled = {(row["variant"], row["kind"]): row["settled_at"] for row in found["by_tokens"]}
    rows = [
        [
            row["variant"],
            row["kind"],
            str(row["n"]),
            estimate(row["tokens"], 1),
            *(estimate(row[name], 2) for name in ("cut", "repetition", "looping")),
            str(settled[row["variant"], row["kind"]] or "only at the end"),
        ]
        for row in found["length"]
    ]
    measured = ["tokens", "cut at the limit", "repeated 4-grams", "looping", "declined settles at token"]
    return Table("Length and repetition", ["variant", "requests", "n", *measured], rows, keys=2)


def judge_line(judge: Row) -> str:
    """A sentence on a judge: its name, and how far it can be trusted."""
    return f"Judge: {judge['notice']}. {calibration_line(judge.get('calibration'), judge['name'])}"


def plain_table(name: str, study: Row) -> Table | None:
    """The `rows` of a study that has no table of its own, as they are, above its `note`; None where it has no rows."""
    rows = study.get("rows")
    if not rows:
        return None
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    return Table(f"Study: {name}", columns, cells, [study["note"]] if study.get("note") else [])


def _cell(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return estimate(value)
    return number(value) if isinstance(value, float) else str(value)
