"""`bin/replay`: from an edited folder's own record to the same folder again, byte for byte, or the first difference named."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.adapter import read_adapter_config, write_adapter
from editing.checkpoint import IO_CHUNK, Checkpoint
from editing.folder import BASIS_FILE, EDIT_FILE, REPORT_FILE
from editing.header import read_header
from editing.projection import Edit
from editing.record import read_edit, read_record
from editing.writer import write_edited
from engine.checkpoints.edited_folder import folder_of
from engine.checkpoints.export import card_of
from engine.checkpoints.verify import check_base, plan_of
from engine.configs.load import validate
from engine.configs.schema import ModelConfig, RunConfig
from engine.display.progress import say
from engine.environment import versions
from engine.errors import EngineError
from engine.models.embedded import NAME as EMBEDDED
from engine.models.locate import open_model
from engine.paths import file_hash
from engine.rollout.directions import extract_configured
from engine.rollout.variants import variant_of
from engine.runs.of_config import given_layers
from engine.runs.recipe import check_recipe
from engine.runs.session import Session
from extraction.prompts import resolve

ADAPTER, MERGED = "adapter", "merged adapter"
HIDDEN = "."


@dataclass(frozen=True)
class Replayed:
    """What came of a replay. difference: the first, in words; None where both folders are equal byte for byte.

    files: how many were compared. versions: packages that are not what the record was made with, old and new.
    """

    folder: str
    variant: str
    files: int
    difference: str | None
    versions: dict[str, list[str]]
    from_data: bool


def replay(
    given: Path, base: str | None, *, pairs: str | None = None, from_data: bool = False, out: Path | None = None
) -> Replayed:
    """Make the folder of `given`, a card or a folder, again and compare.

    base: the base's folder; None takes the record's own where that is embedded. from_data: extract the directions anew, from
    `pairs` or the record's embedded ones, and not from the folder's own basis. out: keep what was made there.
    Raises EngineError for a card without a record, a base that has changed, and prompts that are others.
    """
    folder = folder_of(given)
    record = read_record(folder)
    checkpoint = open_model(ModelConfig(path=_base(record, base)))
    check_base(folder, record, checkpoint)
    if from_data:
        edit = _edit_from_data(folder, record, checkpoint, pairs)
        if (found := edit.basis_hash) != record["basis_hash"]:
            say(f"replay: the directions are others than the record's: basis {found[:16]}, expected {record['basis_hash'][:16]}")
    else:
        edit = read_edit(folder, record, checkpoint.hidden_size)
    with tempfile.TemporaryDirectory(prefix="refusal-replay-") as name:
        made = Path(name) / folder.name if out is None else out
        _write(folder, record, checkpoint, edit, made)
        ignored = {REPORT_FILE} if record.get("form") == ADAPTER else set[str]()  # measured with a model, not made
        files = sorted(set(_files(folder)) - ignored)
        difference = first_difference(folder, made, ignored)
    return Replayed(str(folder), record["variant"], len(files), difference, changed_versions(record), from_data)


def first_difference(folder: Path, made: Path, ignored: Collection[str] = ()) -> str | None:
    """The first file, in order of name, that differs, with the tensor or byte where it does; None for equal folders."""
    ours, theirs = _files(made), _files(folder)
    for name in sorted({*ours, *theirs} - set(ignored)):
        if name not in ours:
            return f"{name} is in {folder} and is not made again"
        if name not in theirs:
            return f"{name} is made again and is not in {folder}"
        if (place := _first_byte(folder / name, made / name)) is not None:
            return f"{name} differs at byte {place}{_tensor_at(folder / name, place)}"
    return None


def changed_versions(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Packages whose version is not the record's: [then, now]."""
    then, now = record.get("versions"), versions()
    return {name: [str(old), now.get(name, "none")] for name, old in dict(then or {}).items() if now.get(name) != old}


def _base(record: Mapping[str, Any], base: str | None) -> str:
    if base is not None:
        return base
    if record["base_model"] == EMBEDDED:
        return EMBEDDED
    raise EngineError(f"The record's base is {record['base_model']}. Name its folder with --base DIR.")


def _edit_from_data(folder: Path, record: dict[str, Any], checkpoint: Checkpoint, pairs: str | None) -> Edit:
    """The edit with directions that are extracted anew, of the prompts that the record names by hash."""
    recipe = check_recipe(record, folder / EDIT_FILE)
    if recipe["given"]:
        raise EngineError(f"{folder}: its directions were given as a file, not made of prompts. Replay it without --from-data.")
    config = _config(recipe, record, checkpoint, pairs)
    source = config.data.train_pairs
    if (found := file_hash(resolve(source))) != (wanted := record["data_hashes"].get("train_pairs")):
        raise EngineError(f"{source} holds other prompts ({found}) than the record's ({wanted}). Give those with --pairs FILE.")
    session = Session(config)
    given_layers(session.config)
    edit = variant_of(session, extract_configured(session), session.config).edit
    assert edit is not None
    return edit


def _config(recipe: Mapping[str, Any], record: Mapping[str, Any], checkpoint: Checkpoint, pairs: str | None) -> RunConfig:
    tables = {name: dict(value) for name, value in recipe.items() if isinstance(value, dict)}
    tables["model"]["path"] = str(checkpoint.directory)
    source = pairs or tables["data"]["train_pairs"]
    if pairs is None and not str(source).startswith("embedded:"):
        raise EngineError(f"The record's prompts are the file {source}. Give it with --pairs FILE.")
    tables["data"]["train_pairs"] = source
    return validate({"variant": record["variant"], **tables}, "the record's recipe")


def _write(folder: Path, record: dict[str, Any], base: Checkpoint, edit: Edit, out: Path) -> None:
    plan = plan_of(base, record)
    form = record.get("form")
    if form == MERGED:
        raise EngineError(f"{folder} was merged from an adapter: replay the adapter's own folder.")
    if form == ADAPTER:
        named = read_adapter_config(folder).get("base_model_name_or_path", "")
        fields = {key: value for key, value in record.items() if key != "form"}
        write_adapter(base, plan, edit, out, base_model=named, record=fields, card=card_of(fields, []))
    else:
        write_edited(base, plan, edit, out, record=record, card=lambda proofs: card_of(record, proofs))


def _files(folder: Path) -> list[str]:
    """Every file of a folder, by its path there, hidden ones left aside."""
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [file.as_posix() for file in files if not any(part.startswith(HIDDEN) for part in file.parts)]


def _first_byte(one: Path, other: Path) -> int | None:
    """The place of the first byte in which two files differ; None where they are equal."""
    place = 0
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            ours, theirs = left.read(IO_CHUNK), right.read(IO_CHUNK)
            if ours != theirs:
                pairs = zip(ours, theirs, strict=False)
                return place + next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
            if not ours:
                return None
            place += len(ours)


def _tensor_at(file: Path, place: int) -> str:
    if file.suffix != ".safetensors" or file.name == Path(BASIS_FILE).name:
        return ""
    return next((f", in {entry.name}" for entry in read_header(file) if entry.begin <= place < entry.end), "")
