"""Stage 1: the screen's table, and which candidates it lets through."""

import math
import time
from collections.abc import Sequence

import pyarrow as pa

from engine.configs.schema import SweepConfig
from engine.display.progress import Progress
from engine.errors import EngineError
from engine.evaluate.candidates import Candidate
from engine.evaluate.probing import filtered, make_probe
from engine.evaluate.rollouts import Rollouts
from engine.rollout.directions import transformers_model
from engine.runs import parquet
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.sweep.grid import Grid
from engine.sweep.inputs import SweepInputs, top_sizes

SCREEN_SCHEMA = pa.schema(
    [
        ("variant_hash", pa.string()),
        ("variant", pa.string()),
        ("position", pa.string()),
        ("layer", pa.int32()),
        ("alpha", pa.float64()),
        ("n", pa.int32()),
        ("bypass", pa.float64()),
        ("induce", pa.float64()),
        ("kl", pa.float64()),
    ]
)
FIGURES = ("n", "bypass", "induce", "kl")


def run_screen(
    session: Session, grids: Sequence[Grid], inputs: SweepInputs, table: parquet.ShardedTable, rollouts: Rollouts
) -> dict[str, Row]:
    """A row of `table` for every single direction of every grid and for the base, by variant hash; what is there stays.

    A layer beyond the depth limit gets a row without numbers: nothing could make it pass.
    """
    try:
        _fill(session, grids, inputs, table, rollouts)
    finally:
        table.merge({"position": None, "layer": None, "alpha": None})
    return {row["variant_hash"]: row for row in table.rows()}


def _fill(session: Session, grids: Sequence[Grid], inputs: SweepInputs, table: parquet.ShardedTable, rollouts: Rollouts) -> None:
    done, config = table.keys(), session.config.sweep
    todo = [(grid, one) for grid in grids for one in grid.singles() if (one.variant.hash,) not in done]
    if not todo:
        return
    started = time.monotonic()
    limit = config.max_depth * session.checkpoint.num_layers
    there = [(grid, one) for grid, one in todo if one.layers[0] < limit]
    sources = list({(id(grid), one.sources[0]): (grid, *one.sources[0]) for grid, one in there}.values())
    with Progress("screen", len(there) + len(sources), "steps") as progress:
        pairs = inputs.pairs[: config.screen_prompts]
        probe = make_probe(session, transformers_model(session), pairs, rollouts.scoring.grader)
        if (session.base.hash,) not in done:
            table.append(probe.base_row(grids[0].base()))
        induced = {}
        vectors = [(layer, grid.directions[position].steering_LH[layer]) for grid, position, layer in sources]
        for (grid, position, layer), induce_N in zip(sources, probe.induce(vectors, config), strict=True):
            induced[id(grid), position, layer] = induce_N
            progress.advance()
        for _, candidate in todo:
            if candidate.layers[0] >= limit:
                table.append(_row(candidate) | {"n": 0})
        asked = [(candidate, induced[id(grid), *candidate.sources[0]]) for grid, candidate in there]
        for (candidate, _), measured in zip(asked, probe.ablate(asked, config), strict=True):
            table.append(_row(candidate) | measured)
            progress.advance()
    table.flush()
    rollouts.times.add(screen_seconds=time.monotonic() - started)


def _row(candidate: Candidate) -> Row:
    position, layer = candidate.sources[0]
    named = {"variant_hash": candidate.variant.hash, "variant": candidate.name, "position": position, "layer": layer}
    return named | {"alpha": candidate.alpha}


def verdicts(rows: Sequence[Row], config: SweepConfig, num_layers: int) -> list[Row]:
    """Each row with `kept` and `reason`: of those that pass the filters, all alphas of the strongest bypassing directions.

    As many directions go on as `keep` says, or as the largest topN needs.
    """
    ranked = sorted(rows, key=lambda row: (math.inf if row["bypass"] is None else row["bypass"], row["variant"]))
    passing = [row for row in ranked if filtered(row, config, num_layers) is None]
    directions = list(dict.fromkeys((row["position"], row["layer"]) for row in passing))
    most = max([config.keep, *top_sizes(config)])
    chosen = set(directions[:most])
    judged = []
    for row in ranked:
        reason = filtered(row, config, num_layers)
        kept = reason is None and (row["position"], row["layer"]) in chosen
        judged.append(
            {**row, "kept": kept, "reason": reason or ("passes the screen" if kept else f"{most} directions bypass more")}
        )
    return judged


def with_one_kept(rows: Sequence[Row]) -> list[Row]:
    """Verdicts of a control: where nothing passes, its strongest bypass goes on, so that every draw has a winner."""
    measured = [row for row in rows if row["n"]]
    if any(row["kept"] for row in rows) or not measured:
        return list(rows)
    best = min(measured, key=lambda row: (row["bypass"], row["variant"]))
    reason = f"nothing passes the screen; the strongest bypass ({best['reason']})"
    return [row | {"kept": True, "reason": reason} if row is best else row for row in rows]


def check_survivors(rows: Sequence[Row], config: SweepConfig) -> None:
    """Raise EngineError where the screen left nothing, with what came nearest."""
    if any(row["kept"] for row in rows):
        return
    limits = f"KL <= {config.max_kl:g}, induce > {config.min_induce:g}, depth < {config.max_depth:g}"
    advice = (
        "screen.parquet has every candidate's. Set --max-kl, --min-induce or --max-depth to what this model allows, or search "
        "without the screen: --exhaustive."
    )
    measured = [row for row in rows if row["n"]]
    if not measured:
        raise EngineError(f"No candidate passes the screen ({limits}): every layer is too deep. {advice}")
    mildest, strongest = min(measured, key=lambda row: row["kl"]), max(measured, key=lambda row: row["induce"])
    raise EngineError(
        f"No candidate passes the screen ({limits}): the lowest KL is {mildest['kl']:.3f} ({mildest['variant']}), the highest "
        f"induce {strongest['induce']:.2f} ({strongest['variant']}). {advice}"
    )
