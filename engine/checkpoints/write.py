"""A variant written as a checkpoint, an adapter or both, by `bin/edit`."""

from pathlib import Path
from typing import Any

from engine.configs.schema import RunConfig
from engine.rollout.variants import load_variant
from engine.runs.inputs import given_layers
from engine.runs.run_dir import open_for_directions
from engine.runs.session import Session


def write_variant(
    config: RunConfig,
    run_path: Path,
    out: Path,
    *,
    directions: Path | None = None,
    allow_other_base: bool = False,
    as_adapter: bool = False,
) -> dict[str, Any]:
    """The variant as a checkpoint or an adapter in `out`; returns its edit record.

    The directions are those of the file `directions`, or the run's.
    """
    from engine.checkpoints.export import check_export, directions_of, export

    given_layers(config)
    session = Session(config)
    session.layers()
    check_export(session, out)
    if directions is None:
        session.rendered_pairs()  # what a tokenizer or template cannot do shows before a run directory is made
    run_dir = None if directions else open_for_directions(run_path, session.identity)
    file = directions_of(session, run_dir, directions, allow_other_base=allow_other_base)
    variant = load_variant(session, file)
    record = export(session, variant, out, as_adapter=as_adapter)
    if as_adapter:
        from engine.checkpoints.adapter_divergence import report_divergence

        record = {**record, "divergence": report_divergence(session, variant, out)}
    return record
