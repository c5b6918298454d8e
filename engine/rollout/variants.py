"""The variants that a command names, opened with the base they share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import default_run_dir, hash_of
from engine.rollout.directions import ensure_directions
from engine.runs.files import DIRECTIONS
from engine.runs.of_config import check_has_directions, given_layers
from engine.runs.run_dir import OtherDirectionsError, RunDir, open_for_directions
from engine.runs.session import Session

if TYPE_CHECKING:
    from engine.models.variant import Variant
    from extraction.directions import Directions

BASE, SWAPPABLE = "base", "swappable"
ONE_BASE = "one server holds one base. Start two, with another --port"


def open_sessions(configs: Sequence[RunConfig], one_base: str = ONE_BASE) -> list[Session]:
    """A session for each variant. Raises EngineError for a name given twice, and for variants of different bases (`one_base` says
    why not, and what to do)."""
    names = [config.variant for config in configs]
    for config in configs:
        given_layers(config)
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise EngineError(f"Variant {repeated} is named twice; each served model has one name.")
    if BASE in names:
        raise EngineError(f"'{BASE}' is the base's own name on the server; rename the variant's file.")
    sessions = [Session(config) for config in configs]
    for session in sessions:
        session.layers()
        if session.base_hash != sessions[0].base_hash:
            raise EngineError(
                f"{session.config.variant} is a variant of {session.config.model.path}, {sessions[0].config.variant} of "
                f"{sessions[0].config.model.path}: {one_base}."
            )
    return sessions


def load_variant(session: Session, directions_file: Path) -> "Variant":
    """The configured variant, from a directions file, which a variant that is a checkpoint does without."""
    if session.config.checkpoint is not None:
        return session.replaced
    from extraction.files import load_directions

    return variant_of(session, load_directions(directions_file), session.config)


def variant_of(session: Session, directions: "Directions", config: RunConfig) -> "Variant":
    """A variant of the session's model: name, layers, k and alpha of `config`, on the tensors that the session's plan edits."""
    from editing.projection import Edit, orthonormal_basis
    from engine.models.variant import Variant
    from extraction.directions import unit_directions

    check_has_directions(config, "this")
    layers = given_layers(config)
    session.check_layers(layers, "directions.layers or --layers")
    names = [f"layer {layer}'s direction" for layer in layers]
    basis_HK = orthonormal_basis(unit_directions(directions, layers), k=config.directions.k, names=names)
    edit = Edit(basis_HK, config.edit.alpha, config.edit.keep_norms)
    return Variant(config.variant, session.base_hash, session.plan, edit, tuple(layers))


def _directory(session: Session, key: str) -> RunDir:
    """The run directory of a variant's name; one beside it where that holds directions of another configuration."""
    path = default_run_dir(session.config.variant)
    try:
        return open_for_directions(path, session.identity)
    except OtherDirectionsError:
        beside = path.with_name(f"{path.name}-{key}")
        say(f"directions: {path} is of another configuration; these go to {beside}")
        return open_for_directions(beside, session.identity)


def variants_of(sessions: Sequence[Session]) -> "list[Variant]":
    """The configured variants. Directions come from the run directory of the first that needs them, extracted where missing;
    variants of the same pairs, base and position share them."""
    files: dict[str, Path] = {}
    found = []
    for session in sessions:
        if session.config.checkpoint is not None:
            found.append(session.replaced)
            continue
        key = hash_of(session.directions_inputs())
        if key not in files:
            run_dir = _directory(session, key)
            with run_dir.locked():
                ensure_directions(session, run_dir)
            files[key] = run_dir.file(DIRECTIONS)
        found.append(load_variant(session, files[key]))
    return found
