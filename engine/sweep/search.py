"""The stages of a sweep: directions, screen, race (successive halving), selection at full length, confirmation on test prompts.

Every decision is a function of rows on disk, so a sweep that was killed makes the same ones when it is run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.display.progress import say
from engine.errors import EngineError
from engine.evaluate.candidates import Candidate
from engine.evaluate.rollouts import Rollouts
from engine.rollout.directions import extract, provenance
from engine.runs.requests import Request
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.sweep import halving, screen
from engine.sweep.grid import Grid
from engine.sweep.inputs import SweepInputs
from extraction.controls import Control, controls
from extraction.files import load_directions, save_directions
from judging.paired import Grades


@dataclass
class Search:
    """A search and its findings so far. `stages` holds a row per candidate and stage, for sweep.parquet."""

    session: Session
    inputs: SweepInputs
    grid: Grid
    rollouts: Rollouts
    stages: list[Row] = field(default_factory=list)
    noted: dict[str, Candidate] = field(default_factory=dict)
    """Every candidate that has a row, by name."""

    @property
    def of_control(self) -> bool:
        """Whether this search chooses a control, as the sweep's own chooses its winner."""
        return self.grid.control is not None

    def screened(self, rows: Mapping[str, Row]) -> list[Candidate]:
        """Stage 1: the single directions that pass the screen, the strongest bypass first.

        rows: the screen's, by variant hash. A control of which nothing passes goes on with its strongest bypass.
        """
        config = self.session.config.sweep
        singles = {candidate.variant.hash: candidate for candidate in self.grid.singles()}
        judged = screen.verdicts([rows[name] for name in singles], config, self.session.checkpoint.num_layers)
        if self.of_control:
            judged = screen.with_one_kept(judged)
        else:
            base = self.grid.base()
            self._note("screen", base, **{name: rows[base.variant.hash][name] for name in screen.FIGURES})
            screen.check_survivors(judged, config)
        for row in judged:
            candidate = singles[row["variant_hash"]]
            self._note("screen", candidate, **{name: row[name] for name in (*screen.FIGURES, "kept", "reason")})
        kept = [singles[row["variant_hash"]] for row in judged if row["kept"]]
        self._say(f"screen: {len(kept)} of {len(judged)} candidates go on: {', '.join(candidate.name for candidate in kept)}")
        return kept

    def raced(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Stage 2: short generations on more and more selection prompts; returns all, best first; who left later is better."""
        config, requests = self.session.config.sweep, self.inputs.race
        left, before = list(candidates), 0
        out: list[Candidate] = []
        for number, size in enumerate(halving.rounds(config.first_round, len(requests)), 1):
            self.rollouts.make(left, requests[before:size], config.short_tokens)
            left, before = self._working(f"race {number}", left), size
            by_name = {candidate.name: candidate for candidate in left}
            grades = {name: self.grades(candidate, requests[:size]) for name, candidate in by_name.items()}
            verdicts = halving.judge_round(grades, keep=config.finalists) if left else []
            for verdict in verdicts:
                candidate = by_name[verdict.name]
                self._note(f"race {number}", candidate, grades[verdict.name], kept=verdict.kept, reason=verdict.reason)
            left = [by_name[verdict.name] for verdict in verdicts if verdict.kept]
            out = [by_name[verdict.name] for verdict in verdicts if not verdict.kept] + out
            ahead = left[0].name if left else "nobody"
            self._say(f"race: {size} prompts, {len(left)} of {len(verdicts)} candidates go on; ahead: {ahead}")
            if len(left) <= config.finalists:
                break  # nothing is left to decide
        if not left:
            raise EngineError(f"Every variant failed twice: {self.rollouts.reasons()}")
        return left + out

    def finalists(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best single directions, and for each subspace its best alpha on the race's prompts."""
        config, requests = self.session.config.sweep, self.inputs.race
        subspaces = [*self.grid.best_of(ranked), *self.grid.listed()]
        if len(config.alphas) > 1 and subspaces:
            self.rollouts.make(subspaces, requests, config.short_tokens)
            subspaces = self._working("race subspaces", subspaces)
            for candidate in subspaces:
                self._note("race subspaces", candidate, self.grades(candidate, requests))
        return [*ranked[: config.finalists], *self._best_alphas(subspaces, requests)]

    def selected(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Full length on all selection prompts; the candidates, best first."""
        requests, base = self.inputs.selection, self.grid.base()
        self.rollouts.make([base, *candidates], requests, self.session.config.sampling.max_tokens)
        working = self._working("selection", candidates)
        self.rollouts.read_base([base, *working], requests)
        ranked = self._by_product(working, requests)
        for candidate in (base, *ranked):
            self._note("selection", candidate, self.grades(candidate, requests))
        return ranked

    def searched(self, screened: Mapping[str, Row]) -> list[Candidate]:
        """The finalists, best first: found by screen and race, or exhaustively where the configuration says so."""
        if self.session.config.sweep.exhaustive:
            finalists = self.exhaust()
        else:
            finalists = self.selected(self.finalists(self.raced(self.screened(screened))))
        if not finalists:
            raise EngineError(f"Every variant failed twice: {self.rollouts.reasons()}")
        return finalists

    def exhaust(self) -> list[Candidate]:
        """Every single direction and subspace at full length on the selection prompts; the finalists, best first."""
        requests = self.inputs.selection
        singles = self.selected(self.grid.singles())
        subspaces = self.selected([*self.grid.best_of(singles), *self.grid.listed()])
        finalists = [*singles[: self.session.config.sweep.finalists], *self._best_alphas(subspaces, requests)]
        return self._by_product(finalists, requests)

    def _by_product(self, candidates: Sequence[Candidate], requests: Sequence[Request]) -> list[Candidate]:
        return sorted(candidates, key=lambda candidate: (-self.grades(candidate, requests).product, candidate.name))

    def _best_alphas(self, subspaces: Sequence[Candidate], requests: Sequence[Request]) -> list[Candidate]:
        """Of each subspace the alpha that did best on these requests; the only one where there is but one."""
        best: dict[str, Candidate] = {}
        for candidate in subspaces:
            rival = best.setdefault(candidate.group, candidate)
            if rival is not candidate and self.grades(candidate, requests).product > self.grades(rival, requests).product:
                best[candidate.group] = candidate
        return list(best.values())

    def _working(self, stage: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates that no engine gave up on; the others get a row that says why."""
        for candidate in candidates:
            if reason := self.rollouts.failures.get(candidate.variant.hash):
                self._note(stage, candidate, kept=False, reason=f"failed: {reason}")
        return self.rollouts.working(candidates)

    def confirmed(self, finalists: Sequence[Candidate], controls: Sequence[Candidate]) -> list[Candidate]:
        """Stage 3: base, finalists and what each control chose, on the test prompts, which chose none of them."""
        everyone = [self.grid.base(), *finalists, *controls]
        self.rollouts.make(everyone, self.inputs.test, self.session.config.sampling.max_tokens)
        self.rollouts.read_base(self.rollouts.working(everyone), self.inputs.test)
        return everyone

    def grades(self, candidate: Candidate, requests: Sequence[Request]) -> Grades:
        return self.rollouts.grades(candidate, requests)

    def _say(self, message: str) -> None:
        if not self.of_control:
            say(message)

    def _note(self, stage: str, candidate: Candidate, grades: Grades | None = None, **more: Any) -> None:
        self.noted[candidate.name] = candidate
        self.stages = [row for row in self.stages if (row["stage"], row["variant"]) != (stage, candidate.name)]
        self.stages.append(stage_row(stage, candidate, grades, **more))


def stage_row(stage: str, candidate: Candidate, grades: Grades | None = None, **more: Any) -> Row:
    """A row of sweep.parquet."""
    row = {
        "stage": stage,
        "variant": candidate.name,
        "variant_hash": candidate.variant.hash,
        "kind": candidate.kind,
        "sources": [f"{position}@{layer}" for position, layer in candidate.sources],
        "alpha": candidate.alpha,
        "k": candidate.k,
    }
    return row | (figures(grades) if grades is not None else {}) | more


def figures(grades: Grades) -> Row:
    """n, and compliance, coherence and both products with 95 % intervals over kinds."""
    row: Row = {"n": int(grades.known.sum())}
    for name, estimate in grades.estimates().items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def grids_of_sweep(session: Session, run_dir: RunDir) -> list[Grid]:
    """The sweep's own grid and one for each control, from the run directory's directions, extracted where they are missing."""
    config, positions = session.config.sweep, session.offsets(session.config.sweep.positions)
    drawn = controls(config.controls or 0, config.seed)
    files = {(name, draw): direction_file(run_dir.path, name, draw) for draw in (None, *drawn) for name in positions}
    inputs = session.directions_inputs() | {"positions": positions, "seed": config.seed, "controls": config.controls}

    def work() -> None:
        extraction = extract(session, positions, drawn)
        run_dir.file("directions").mkdir(exist_ok=True)
        for (name, draw), file in files.items():
            made = extraction.directions if draw is None else extraction.controls[draw.name]
            save_directions(file, made[name], provenance(session) | ({} if draw is None else {"control": draw.name}))

    written = [str(file.relative_to(run_dir.path)) for file in files.values()]
    run_dir.run_stage("directions", work, settings=inputs, writes=written)
    return [Grid(session, {name: load_directions(files[name, draw]) for name in positions}, draw) for draw in (None, *drawn)]


def direction_file(folder: Path, position: str, control: Control | None) -> Path:
    """Where a sweep keeps the directions of a position, its own or a control's."""
    suffix = "" if control is None else f"-{control.name}"
    return folder / "directions" / f"{position.replace(':', '')}{suffix}.safetensors"
