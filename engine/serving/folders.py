"""The folders that a server opens, in the cache by their variants' hashes: written once, looked through before they are used."""

from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from editing.adapter import WEIGHTS_FILE
from editing.checkpoint import open_checkpoint
from editing.compare import unfaithful_factors, unfaithful_files, unfaithful_tensors
from editing.errors import EditError
from editing.folder import EDIT_FILE
from engine.checkpoints.export import check_export, export
from engine.display.progress import say
from engine.errors import EngineError
from engine.models.locate import remembered
from engine.models.variant import Variant
from engine.paths import cache_dir, replace_atomically
from engine.runs.inputs import RunInputs

VERIFIED = "verified_folders.json"


@dataclass(frozen=True)
class ServedModel:
    """A name that the server answers to, the variant's hash (the base's own for `base`), and its folder."""

    name: str
    variant_hash: str
    folder: Path


def variant_folder(session: RunInputs, variant: Variant, *, as_adapter: bool, allow_changed: bool) -> ServedModel:
    """The variant's checkpoint or adapter, written if it is not there.

    Raises EngineError where a folder of the cache holds other weights than its card says, unless `allow_changed`.
    """
    folder = cache_dir() / "served" / f"{variant.name}-{variant.hash}{'-lora' if as_adapter else ''}"
    there = (folder / EDIT_FILE).is_file()
    if folder.exists() and not there:
        raise EngineError(f"{folder} has no {EDIT_FILE}, so it is not what bin/serve left there. Remove it: it is made again.")
    check_export(session, folder)
    export(session, variant, folder, as_adapter=as_adapter)
    if there:
        _check_weights(session, variant, folder, allow_changed=allow_changed)
    return ServedModel(variant.name, variant.hash, folder)


def base_folder(session: RunInputs) -> Path:
    """The base's folder under a name that ends in its hash, as the variants' do: /v1/models shows it."""
    link = cache_dir() / "served" / f"base-{session.base.hash}"
    target = session.checkpoint.directory.resolve()
    if link.resolve() != target:
        link.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(link) as made:
            made.symlink_to(target, target_is_directory=True)
    return link


def _check_weights(session: RunInputs, variant: Variant, folder: Path, *, allow_changed: bool) -> None:
    """Everything that makes the model against what the edit makes of the base; remembered until a file changes."""

    def faithful() -> str:
        if changed := _unfaithful(session, variant, folder):
            raise EngineError(
                f"{folder} says on its card that it is variant {variant.hash}, and it is not: {len(changed)} of its tensors and "
                f"files are not what that edit makes of the base, {changed[0]} first. Remove the folder, and it is made again; "
                "or add --allow-changed-weights, if somebody changed it on purpose."
            )
        return variant.hash

    files = sorted(file for file in folder.iterdir() if file.is_file())
    if allow_changed:
        if changed := _unfaithful(session, variant, folder):
            say(f"serve: {folder.name}: {len(changed)} tensors or files are not variant {variant.hash}'s; served as they are")
    else:
        remembered(VERIFIED, folder, files, faithful)


def _unfaithful(session: RunInputs, variant: Variant, folder: Path) -> list[str]:
    assert variant.edit is not None
    base = session.checkpoint
    try:
        if (folder / WEIGHTS_FILE).is_file():
            return unfaithful_factors(folder, base, variant.plan, variant.edit)
        files = unfaithful_files(folder, base, variant.plan)
        return files + unfaithful_tensors(open_checkpoint(folder), base, variant.plan, variant.edit)
    except (EditError, OSError, ValueError, KeyError, SafetensorError) as error:  # what it takes to be no model at all
        return [f"{type(error).__name__}: {error}"]


@dataclass(frozen=True)
class Launch:
    """A command that serves, what it serves, and where."""

    command: list[str]
    models: list[ServedModel]
    url: str
    environment: dict[str, str] = field(repr=False, default_factory=dict)  # holds the key
