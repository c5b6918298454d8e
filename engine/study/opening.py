"""A run directory opened for a study: the session whose pairs make directions, and the pairs that are held out from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.rundir import RunDir, hash_of, open_for_directions, write_json
from engine.session import Session
from engine.sweep.inputs import with_selection
from extraction.prompts import Pair

DIGITS = 6
FORMAT = 2  # raise where a study's file changes its content: older ones are left out of reports, and made again


@dataclass(frozen=True)
class Study:
    """`session` holds the pairs that make directions; `held_out` made none. `whole` is the run's own session: where no
    selection pairs are named, its directions come of all pairs, held-out ones too."""

    session: Session
    whole: Session
    run_dir: RunDir
    held_out: list[Pair]

    def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A study as a stage: NAME.json of the run directory, made again where its inputs have changed; returns its content."""
        import json

        file = f"{name}.json"
        held_out = hash_of({"pairs": [[pair.declined, pair.answered] for pair in self.held_out]})
        stated = {**inputs, "format": FORMAT, "directions": self.session.directions_inputs(), "held_out": held_out}

        def make() -> None:
            write_json(self.run_dir.file(file), headed(self.session.config.variant, inputs, work()))

        self.run_dir.run_stage(name, stated, [file], make)
        return dict(json.loads(self.run_dir.file(file).read_text()))


def open_study(config: RunConfig, path: Path) -> Study:
    """Open or make the run directory of a configuration. Raises EngineError for one with other directions, and where a
    held-out pair shares a prompt with the pairs that make directions."""
    whole = Session(config)
    reduced, held_out = with_selection(config)
    session = Session(reduced)
    if len(held_out) < 2 or len(session.pairs) < 4:
        raise EngineError(
            f"A study takes 4 pairs or more that make directions and 2 that are held out; found {len(session.pairs)} and "
            f"{len(held_out)}. Give more pairs, or others with --set data.selection_pairs=FILE."
        )
    made_of = {text for pair in session.pairs for text in (pair.declined, pair.answered)}
    for place, pair in enumerate(held_out):
        if shared := made_of & {pair.declined, pair.answered}:
            raise EngineError(f"Held-out pair {place} shares a prompt with the training pairs: '{next(iter(shared))[:60]}'.")
    session.rendered_pairs()  # what a tokenizer or template cannot do shows before a run directory is made
    return Study(session, whole, open_for_directions(path, whole.identity, whole.directions_inputs()), held_out)


def headed(variant: str, options: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A study's file: format, variant and options, then what was found, rounded."""
    return dict(rounded({"format": FORMAT, "variant": variant, "options": dict(options), **content}))


def rounded(value: Any) -> Any:
    """A table for JSON: floats to six significant digits, None for those that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
