"""From a model's name in a configuration to a checkpoint folder that can be edited and served."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.checkpoint import Checkpoint, open_checkpoint
from editing.errors import EditError
from editing.reading import read_object
from engine.configs.schema import ModelConfig
from engine.display.progress import say, say_once
from engine.errors import EngineError
from engine.models.embedded import NAME as EMBEDDED_NAME
from engine.models.embedded import embedded_model
from engine.paths import cache_dir, hash_of, is_sealed, sealed, user_path, write_text

ENTRIES = "entries"  # of a store in the cache
WANTED_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "*.md"]
UNWANTED_FILES = ["consolidated*", "original/*", "onnx/*", "openvino/*", "gguf/*"]  # other copies of the same weights


def locate_model(model: ModelConfig) -> Path:
    """The folder of a model: a path as it is, the embedded model, or a hub repository's snapshot (fetched if needed).

    Raises EngineError for what is neither, for the outer folder of a hub cache, for a gated repository without access, and where
    no hub can be reached.
    """
    if model.path == EMBEDDED_NAME:
        return embedded_model()
    path = user_path(model.path)
    if path.exists():
        _check_no_cache(path)
        return path
    if model.path.startswith("embedded:"):
        raise EngineError(f"There is no embedded model '{model.path}'; there is {EMBEDDED_NAME}.")
    if model.path.count("/") != 1 or model.path.startswith((".", "/", "~")):
        raise EngineError(f"Model folder {model.path} does not exist. Expected a folder or a repository name such as org/name.")
    return _snapshot(model)


def _check_no_cache(path: Path) -> None:
    """Raise EngineError for the outer folder of a repository in the hub's cache, naming the snapshots inside."""
    inside = path / "snapshots"
    if inside.is_dir() and not (path / "config.json").is_file():
        found = ", ".join(str(folder) for folder in sorted(inside.iterdir())) or "none"
        raise EngineError(f"{path} is a folder of the hub's cache, not a model. Give one of its snapshots: {found}.")


def _snapshot(model: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    options = {"repo_id": model.path, "revision": model.revision, "allow_patterns": WANTED_FILES}
    options |= {"ignore_patterns": UNWANTED_FILES}
    try:
        return Path(snapshot_download(**options))
    except GatedRepoError as error:
        raise EngineError(
            f"{model.path} is gated: accept its licence on its page, then run `hf auth login`, or give a folder with --model."
        ) from error
    except RepositoryNotFoundError as error:
        raise EngineError(
            f"The hub has no repository {model.path} that you can see. Check the name, or give --model DIR."
        ) from error
    except HFValidationError as error:
        raise EngineError(f"'{model.path}' is neither a folder nor a repository name such as org/name.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise EngineError(
            f"{model.path} is not in the local hub cache and could not be fetched ({type(error).__name__}). "
            "Download it on a connected machine and give its folder with --model DIR."
        ) from error


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """`Checkpoint.hash`, remembered in the cache as long as no weight file changes size or time."""
    files = [checkpoint.directory / "config.json", *checkpoint.files]
    return str(remembered("checkpoint_identities.json", checkpoint.directory, files, lambda: checkpoint.hash))


def remembered(store_name: str, directory: Path, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """The answer of `compute` on a folder, from the cache as long as none of `files` changes size or time."""
    state = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    store = cache_dir() / store_name
    known, key = read_store(store), str(directory.resolve())
    if known.get(key, {}).get("state") != state:
        known[key] = {"state": state, "hash": compute()}
        write_store(store, known)
    return str(known[key]["hash"])


def write_store(store: Path, known: Mapping[str, Any]) -> None:
    """Keep what a store of the cache remembers, with its checksum."""
    store.parent.mkdir(parents=True, exist_ok=True)
    write_text(store, json.dumps(sealed({ENTRIES: dict(known)})))


def read_store(store: Path) -> dict[str, Any]:
    """What a store remembers: nothing where it is missing, damaged or of an earlier version, as all of it can be made again."""
    if not store.exists():
        return {}
    try:
        content = read_object(store, "It is made again.")
    except EditError:
        content = {}
    if is_sealed(content) and isinstance(content.get(ENTRIES), dict):
        return dict(content[ENTRIES])
    say(f"cache: {store.name} is damaged or of an earlier version, and is made again")
    return {}


def open_model(model: ModelConfig) -> Checkpoint:
    """Locate a model and open its checkpoint; files beside its weights that are left aside are named on stderr."""
    checkpoint = open_checkpoint(locate_model(model))
    if checkpoint.left:
        say_once(f"model: left aside beside the weights: {', '.join(file.name for file in checkpoint.left)}")
    return open_checkpoint(_without_spares(checkpoint)) if checkpoint.misleads_vllm else checkpoint


def _without_spares(checkpoint: Checkpoint) -> Path:
    """A folder of links to the checkpoint's files without the spare weights, which vLLM would load."""
    spare = {file.name for file in checkpoint.left}
    source = checkpoint.directory.resolve()
    view = cache_dir() / "views" / hash_of({"folder": str(source)}) / source.name
    view.mkdir(parents=True, exist_ok=True)
    wanted = {entry.name: entry for entry in source.iterdir() if entry.name not in spare}
    for link in view.iterdir():
        if link.name not in wanted:
            link.unlink()
    for name, entry in wanted.items():
        if not (view / name).is_symlink():
            (view / name).symlink_to(entry)
    return view
