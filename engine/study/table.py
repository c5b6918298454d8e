"""What the study commands print."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.display.console import console_for_stdout, print_lines, study_table
from engine.display.study_words import (
    compared_estimators,
    highest,
    layer_ranges,
    p_value,
    reading_sentences,
    regrowth_rows,
    strongest,
    structure_sentence,
    triple,
)
from engine.display.summary import number

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
BRACKETS = "In brackets: 95 % intervals. Layers: resid_pre; the last is the last block's output."


def print_extract(found: Row) -> None:
    """Separability and stability by layer, the answer on structure, and what else was measured."""
    console = console_for_stdout()
    geometry = found["geometry"]
    console.print(
        f"{geometry['variant']}: {geometry['model']}, position {geometry['position']}, {geometry['num_pairs']} pairs, "
        f"{geometry['num_held_out']} held out",
        markup=False,
    )
    console.print(_layers_table(geometry))
    if len(compared_estimators(geometry)) > 1:
        console.print(_estimators_table(geometry))
    print_lines(_sentences(found))
    if "effect" in found:
        print_effect(found["effect"])


def print_effect(effect: Row) -> None:
    """What each direction does, folded in."""
    console = console_for_stdout()
    rows = [
        [
            row["name"],
            str(row["k"]),
            *(triple(row[name], 3) for name in ("compliance", "coherence", "product")),
            p_value(row.get("p_holm")),
        ]
        for row in effect["rows"]
    ]
    console.print(study_table(["folded in", "k", "compliance", "coherence", "product", "p (Holm)"], rows))
    print_lines(
        [
            f"The first {effect['rows'][0]['n']} test requests. Judge: {effect['judge']['notice']}. p: exact McNemar against the "
            "base, Holm over this table."
        ]
    )


def print_ablation(found: Row) -> None:
    """Rates by alpha."""
    rows = [
        [
            row["mode"],
            row["subject"],
            row["site"] or "-",
            f"{row['alpha']:g}",
            row["requests"],
            *(triple(row[name], 3) for name in ("declined", "compliance", "coherence")),
        ]
        for row in found["rows"]
    ]
    names = ["mode", "what", "site", "alpha", "requests", "declined", "compliance", "coherence"]
    console_for_stdout().print(study_table(names, rows))
    print_lines([BRACKETS, f"Judge: {found['judge']['notice']}, {found['rows'][0]['n']} test requests a row."])


def print_regrowth(found: Row) -> None:
    """What is left in each round."""
    rows = []
    for row in regrowth_rows(found):
        layer = strongest(row)
        grown = [value for value in row.get("growth", []) if value[0] is not None]
        rows.append(
            [
                str(row["round"]),
                str(row["k"]),
                f"{triple(row['cohens_d'][layer])} (layer {layer})",
                number(highest(row.get("cosine_to_removed", [])[1:])),
                "-" if row.get("recovered") is None else layer_ranges(row["recovered"]) or "none",
                triple(max(grown, key=lambda value: value[0], default=None)),
                triple(row["behaviour"]["declined"], 3),
                triple(row["behaviour"]["coherence"], 3),
            ]
        )
    names = ["round", "removed", "largest d left", "cosine to removed", "layers that recover", "most growth"]
    console_for_stdout().print(study_table([*names, "declined", "coherence"], rows))
    print_lines(
        [
            BRACKETS,
            "Recover: at least half of the base's d on held-out pairs. Growth: length of the mean difference orthogonal to what "
            "was removed, over the base's; the most of all layers.",
            f"Judge: {found['judge']['notice']}, {found['rounds'][0]['behaviour']['n']} test requests.",
        ]
    )


def print_transfer(found: Row) -> None:
    """What another model makes of the run's directions, or a LoRA's writes beside them."""
    if "rows" in found:
        own = found["layers"][0]
        rows = [
            [row["tensor"], str(row["rank"]), f"{row['cosine'][own]:.3f}", f"{max(row['cosine']):.3f}"] for row in found["rows"]
        ]
        console_for_stdout().print(study_table(["adapted tensor", "rank", f"|cos| to layer {own}", "highest |cos|"], rows))
        print_lines([f"Random directions: |cos| {found['random'][0]:.3f} in the median, 97.5 % below {found['random'][1]:.3f}."])
        return
    layers = range(1, len(found["cosine"]))
    rows = [
        [str(layer), f"{found['cosine'][layer]:.3f}", triple(found["run"]["auroc"][layer]), triple(found["own"]["auroc"][layer])]
        for layer in layers
    ]
    console_for_stdout().print(study_table(["layer", "cosine", "AUROC, transferred", "AUROC, its own"], rows))
    print_effect(found["effect"])


def print_behaviour(found: Row) -> None:
    """KL, length, repetition, and how many tokens a declined share needs."""
    kinds = [
        [row["kind"], str(row["n"]), *(triple(row[name], 3) for name in ("first_token", "per_token", "per_response"))]
        for row in found["kl"]
    ]
    names = ["requests", "n", "KL of the first token", "KL a token", "KL a response"]
    console_for_stdout().print(study_table(names, kinds))
    settled = {(row["variant"], row["kind"]): row["settled_at"] for row in found["by_tokens"]}
    rows = [
        [
            row["variant"],
            row["kind"],
            triple(row["tokens"], 1),
            triple(row["cut"]),
            triple(row["repetition"]),
            triple(row["looping"]),
            str(settled[row["variant"], row["kind"]] or "only at the end"),
        ]
        for row in found["length"]
    ]
    names = ["variant", "requests", "tokens", "cut", "repeated 4-grams", "looping", "declined settles at"]
    console_for_stdout().print(study_table(names, rows))
    print_lines(["KL(base || variant) in nats along the base's own responses. Settles: within 0.02 of the last, by the rules."])


def _layers_table(geometry: Row) -> "Table":
    own = geometry["positions"][geometry["position"]]
    mean = own["estimators"]["mean_difference"]
    rows = []
    for layer in range(len(mean["cohens_d"])):
        stable = geometry["stability"].get(str(layer))
        enough = stable and stable["enough"]
        rows.append(
            [
                str(layer),
                triple(mean["cohens_d"][layer]),
                "-" if mean["train_cohens_d"][layer] is None else f"{mean['train_cohens_d'][layer]:.2f}",
                triple(mean["auroc"][layer]),
                triple(geometry["probe"]["held_out"][layer]),
                triple(stable["split_half"]) if stable else "-",
                f"{enough:.0f}" if enough else "-",
            ]
        )
    names = ["layer", "d, held out", "d, training", "AUROC", "probe", "split-half cosine", "pairs for 0.95"]
    return study_table(names, rows)


def _estimators_table(geometry: Row) -> "Table":
    rows = [
        [
            name,
            str(layer),
            number(found["cosine_to_mean_difference"][layer]),
            *(triple(found[key][layer]) for key in ("cohens_d", "auroc")),
        ]
        for name, found in compared_estimators(geometry).items()
        for layer in geometry["layers"]
    ]
    return study_table(["estimator", "layer", "cosine to mean difference", "d, held out", "AUROC"], rows)


def _sentences(found: Row) -> list[str]:
    geometry = found["geometry"]
    lines = [BRACKETS, structure_sentence(geometry)]
    if geometry.get("padded"):
        cosines = [value for value in geometry["padded"]["cosine"] if value is not None]
        lines.append(f"Naive padded batches: cosine to exact extraction {min(cosines):.3f} to {max(cosines):.3f} over layers.")
    return lines + (reading_sentences(found["reading"]) if "reading" in found else [])
