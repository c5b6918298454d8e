"""`bin/export`: which form of what goes where, each file or folder whole or not at all."""

import re
from pathlib import Path

from editing.folder import check_free, new_folder
from engine.configs.load import load_model
from engine.errors import EngineError
from engine.exports import steering
from engine.exports.dataset import as_csv, write_dataset
from engine.exports.inspect_log import eval_log
from engine.exports.rows import read_run_rows
from engine.models.locate import checkpoint_hash, open_model
from engine.paths import replace_atomically, write_bytes, write_text
from engine.runs.files import DIRECTIONS
from extraction.files import FORMAT, load_directions, save_directions

INSPECT, DATASET, CSV = "inspect", "dataset", "csv"
LAYERS, GGUF, OURS = "layers", "gguf", "directions"
OF_RUNS, OF_DIRECTIONS = (INSPECT, DATASET, CSV), (LAYERS, GGUF, OURS)
FORMS = (*OF_RUNS, *OF_DIRECTIONS)


def export(
    source: Path, form: str, out: Path, *, key: str = "layer.{layer}", numbering: str | None = None, like: str | None = None
) -> str:
    """Write `source`, a run directory or a file of directions, in a form; returns a sentence on what was written.

    numbering: of block layers, in a layer-keyed file. like: the model that directions are of, for its number of layers, name and
    hash. Raises EngineError for a form that is not known or does not fit, and for an output that is there.
    """
    if form not in FORMS:
        raise EngineError(f"--to takes one of {', '.join(FORMS)}; found '{form}'.")
    if numbering is not None and numbering not in steering.SHIFT:
        raise EngineError(f"--numbering takes {' or '.join(steering.SHIFT)}; found '{numbering}'.")
    if not source.exists():
        raise EngineError(f"{source} does not exist. Give a run directory, or a file of directions.")
    check_free(out)
    if form in OF_RUNS:
        return _of_run(source, form, out)
    return _of_directions(source, form, out, key, numbering, like)


def _of_run(source: Path, form: str, out: Path) -> str:
    run = read_run_rows(source)
    if form == CSV:
        write_text(out, as_csv(run))
        return f"{out}: {len(run.rollouts)} responses, a row for each score"
    with new_folder(out) as temporary:
        if form == DATASET:
            write_dataset(run, source, temporary)
            return f'{out}: load_dataset("{out}", "rollouts")'
        for variant in run.variants:
            write_bytes(temporary / f"{_file_name(variant)}.eval", eval_log(run, variant))
    return f"{out}: {len(run.variants)} logs; inspect view --log-dir {out}"


def _of_directions(source: Path, form: str, out: Path, key: str, numbering: str | None, like: str | None) -> str:
    file = source / DIRECTIONS if source.is_dir() else source
    checkpoint = None if like is None else open_model(load_model(like, {}))
    directions = _read(file, numbering, None if checkpoint is None else checkpoint.num_layers + 1)
    with replace_atomically(out) as temporary:
        if form == LAYERS:
            numbers = steering.write_layers(directions, temporary, key=key, numbering=numbering or steering.RESID_PRE)
        elif form == GGUF:
            if checkpoint is None:
                raise EngineError("A control vector names its model's architecture: add --like MODEL.")
            numbers = steering.write_gguf(directions, temporary, model_hint=checkpoint.model_type)
        else:
            base = None if checkpoint is None else checkpoint_hash(checkpoint)
            save_directions(temporary, directions, steering.metadata_of(base))
            numbers = list(range(len(directions.direction_LH)))
    return f"{out}: {len(numbers)} layers, {numbers[0]} to {numbers[-1]}"


def _read(file: Path, numbering: str | None, num_layers: int | None) -> steering.Directions:
    """Directions of a file of ours, of a layer-keyed one, or of a control vector."""
    if file.suffix == ".gguf":
        return steering.read_gguf(file, num_layers=num_layers)
    return load_directions(file) if _is_ours(file) else steering.read_layers(file, numbering=numbering, num_layers=num_layers)


def _is_ours(file: Path) -> bool:
    from extraction.errors import ExtractionError
    from extraction.files import read_metadata

    try:
        return read_metadata(file).get("format") == FORMAT
    except ExtractionError:
        return False


def _file_name(variant: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", variant)
