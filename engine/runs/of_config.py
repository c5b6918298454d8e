"""What a configuration says of a run by itself: its layers, the reach of its edit, the name of its base."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from editing.errors import EditError
from editing.plan import Scope
from engine.configs.load import variant_names
from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.paths import shorten
from extraction.errors import ExtractionError

if TYPE_CHECKING:
    pass


@contextlib.contextmanager
def doctor_knows(model: str) -> Iterator[None]:
    """Add to a refusal of a model's folder where to learn more of it."""
    try:
        yield
    except (EditError, EngineError, ExtractionError) as error:
        raise type(error)(f"{error}\nbin/doctor {model} tells more of this model.") from error


def with_dtype(config: RunConfig, dtype: str) -> RunConfig:
    """The configuration with model.dtype resolved."""
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def given_layers(config: RunConfig) -> list[int]:
    """The configured layers, whatever the model; none for a checkpoint. Raises EngineError where they are still to be found."""
    if config.checkpoint is not None:
        return []
    layers = config.directions.layers
    if layers == "sweep":
        search = f"bin/sweep --variant {config.variant}" if config.variant in variant_names() else "the same flags with bin/sweep"
        raise EngineError(f"{config.variant} has no published layer. Find one with {search}, or try one now: --layers 14")
    return layers


def check_has_directions(config: RunConfig, command: str) -> None:
    """Raise EngineError where a variant is a checkpoint of others, which a command has no directions of."""
    if config.checkpoint is not None:
        raise EngineError(
            f"{config.variant} is the checkpoint {config.checkpoint}, and {command} takes a variant with directions. Use it with "
            "bin/rollout, bin/bench or bin/compare."
        )


def scope_of(config: RunConfig) -> Scope:
    """The reach of the configured edit: which tensors of which blocks."""
    edit = config.edit
    return Scope(
        embeddings=edit.embeddings,
        biases=edit.biases,
        layers=None if edit.layers is None else frozenset(edit.layers),
        alpha_by_layer=edit.alpha_by_layer,
        untie=edit.untie,
    )


def model_name(config: RunConfig, base_hash: str) -> str:
    """How rows and cards name the base: its path's last part or repository, and its hash."""
    name = (
        config.model.path if "/" in config.model.path and not Path(config.model.path).exists() else Path(config.model.path).name
    )
    return f"{name}@{shorten(base_hash)}"
