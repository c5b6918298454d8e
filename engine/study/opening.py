"""A run directory opened for a study: the session whose pairs make directions, and the pairs that are held out from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.configs.conditions import check_one_condition
from engine.configs.schema import RunConfig
from engine.errors import EngineError
from engine.paths import hash_of, write_json
from engine.runs.files import STUDY_FORMAT, headed
from engine.runs.json_reader import read_json
from engine.runs.kinds import TEST
from engine.runs.machine import check_machine
from engine.runs.requests import Request
from engine.runs.run_dir import RunDir, open_for_directions
from engine.runs.selection import check_apart, of_other_kinds, texts_of, with_selection
from engine.runs.session import Session
from extraction.prompts import Pair

if TYPE_CHECKING:
    from extraction.directions import Directions

Sides = tuple[list[list[int]], list[list[int]]]


@dataclass(frozen=True)
class Study:
    """`session` holds the pairs that make directions; `held_out` made none. `whole` is the run's own session: where no
    selection pairs are named, its directions come of all pairs, held-out ones too."""

    session: Session
    whole: Session
    run_dir: RunDir
    held_out: list[Pair]

    @cached_property
    def sides(self) -> Sides:
        """The held-out pairs' declined and answered prompts, rendered."""
        return held_out_sides(self.session, self.held_out)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the pairs that make directions; "" for a pair without one."""
        return [pair.category for pair in self.session.pairs]

    @property
    def held_out_kinds(self) -> list[str]:
        """The kinds of the held-out pairs."""
        return [pair.category for pair in self.held_out]

    @property
    def shared_inputs(self) -> dict[str, Any]:
        """The settings that every study depends on."""
        config = self.session.config
        return {
            "format": STUDY_FORMAT,
            "directions": self.session.directions_inputs(),
            "held_out": [[pair.declined, pair.answered, pair.category] for pair in self.held_out],
            "requests": [request.text for request in self.session.requests],
            "sampling": config.sampling.model_dump(mode="json"),
            "vllm": config.vllm,
            "seed": config.sweep.seed,
            "layers": config.directions.layers,
            "k": config.directions.k,
            "edit": config.edit.model_dump(mode="json"),
        }

    def requests(self, kind: str, most: int) -> list[Request]:
        """The first test requests of a kind: no direction, and no layer, was chosen by them."""
        return [request for request in self.session.requests if (request.kind, request.split) == (kind, TEST)][:most]

    def folder(self, name: str) -> RunDir:
        """Where a study keeps its responses: a folder for each set of inputs, in which a prompt's number means one prompt."""
        path = self.run_dir.path / name / hash_of(self.shared_inputs)
        path.mkdir(parents=True, exist_ok=True)
        return RunDir(path, {})

    def directions(self) -> "Directions":
        """Directions that no held-out pair made: the run's own, extracted anew where those come of all pairs."""
        from engine.rollout.directions import ensure_directions, extract_configured
        from engine.runs.files import DIRECTIONS
        from extraction.files import load_directions

        if len(self.session.pairs) == len(self.whole.pairs):
            ensure_directions(self.whole, self.run_dir)
            return load_directions(self.run_dir.file(DIRECTIONS))
        return extract_configured(self.session)

    def earlier_options(self, name: str) -> dict[str, Any]:
        """The options of this study's file, where all else is as it was; empty where there is none."""
        file = self.run_dir.file(f"{name}.json")
        if not file.is_file():
            return {}
        content = read_json(file)
        return dict(content["options"]) if content.get("made_from") == hash_of(self.shared_inputs) else {}

    def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A study as a stage: NAME.json of the run directory, made again where its inputs have changed; returns its content."""
        file, shared = f"{name}.json", self.shared_inputs

        def make() -> None:
            content = headed(self.session.config.variant, inputs, work()) | {"made_from": hash_of(shared)}
            write_json(self.run_dir.file(file), content)

        self.run_dir.run_stage(name, make, settings={**inputs, **shared}, writes=[file])
        return read_json(self.run_dir.file(file))


def open_study(config: RunConfig, path: Path) -> Study:
    """Open or make the run directory of a configuration.

    Raises EngineError for one with other directions, for a layer that the model lacks, and where a held-out or test prompt
    is among those that make directions.
    """
    check_one_condition(config, "A study")
    whole = Session(config)
    if config.directions.layers != "sweep":
        whole.layers()
    reduced, held_out = with_selection(config)
    session = Session(reduced)
    held_out = of_other_kinds(session, held_out)
    if len(held_out) < 2 or len(session.pairs) < 4:
        raise EngineError(
            f"A study takes 4 pairs or more that make directions and 2 that are held out; found {len(session.pairs)} and "
            f"{len(held_out)}. Give more pairs, or others with --set data.selection_pairs=FILE."
        )
    check_apart("training", texts_of(session.pairs), "held-out", texts_of(held_out))
    check_apart("training", texts_of(session.pairs), "test", [request.text for request in session.requests])
    check_machine(session)
    session.check_prompts()  # what a tokenizer, a template or a length cannot do shows before a run directory is made
    held_out_sides(session, held_out)
    return Study(session, whole, open_for_directions(path, whole.identity), held_out)


def held_out_sides(session: Session, held_out: list[Pair]) -> Sides:
    """Held-out pairs rendered by a session's tokenizer, none longer than the window."""
    declined = session.render_texts([pair.declined for pair in held_out], "declined held-out prompts")
    return declined, session.render_texts([pair.answered for pair in held_out], "answered held-out prompts")
