"""The stages of a sweep: directions, screen, race (successive halving), selection at full length, confirmation on test prompts.

Every decision is a function of rows on disk, so a sweep that was killed makes the same ones when it is run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import store
from engine.progress import say
from engine.rundir import RunDir
from engine.session import Request, Session
from engine.stages import extract, provenance
from engine.sweep import halving, screen
from engine.sweep.grid import SINGLE, Candidate, Grid
from engine.sweep.inputs import SweepInputs
from engine.sweep.rows import Rollouts
from extraction.files import load_directions, save_directions
from judging.paired import Grades

Row = dict[str, Any]


@dataclass
class Search:
    """What a search has found so far. `stages` holds a row per candidate and stage, for sweep.parquet."""

    session: Session
    inputs: SweepInputs
    grid: Grid
    rollouts: Rollouts
    stages: list[Row] = field(default_factory=list)

    def screened(self, table: store.ShardedTable) -> list[Candidate]:
        """Stage 1: the single directions that pass the screen, the strongest bypass first."""
        config = self.session.config.sweep
        screen.run_screen(self.session, self.grid, self.inputs.pairs[: config.screen_prompts], table)
        singles = {candidate.variant.hash: candidate for candidate in self.grid.singles()}
        rows = [row for row in table.rows() if row["variant_hash"] in singles]
        judged = screen.verdicts(rows, config, self.session.checkpoint.num_layers)
        for row in judged:
            self._note(
                "screen", singles[row["variant_hash"]], **{k: row[k] for k in ("n", "bypass", "induce", "kl", "kept", "reason")}
            )
        screen.check_survivors(judged, config)
        kept = [singles[row["variant_hash"]] for row in judged if row["kept"]]
        say(f"screen: {len(kept)} of {len(judged)} candidates go on: {', '.join(candidate.name for candidate in kept)}")
        return kept

    def raced(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Stage 2: short generations on more and more selection prompts; returns the single directions, best first."""
        config = self.session.config.sweep
        cuts = [config.finalists, *self.grid.top_sizes]
        requests, left, before = self.inputs.race, list(candidates), 0
        ranked: list[Candidate] = []
        for number, size in enumerate(halving.rounds(config.first_round, len(requests)), 1):
            self.rollouts.make(left, requests[before:size], config.short_tokens)
            left, before = self.rollouts.working(left), size
            verdicts = halving.judge_round({c.name: self.grades(c, requests[:size]) for c in left}, keep=max(cuts))
            by_name = {candidate.name: candidate for candidate in left}
            for verdict in verdicts:
                grades = self.grades(by_name[verdict.name], requests[:size])
                self._note(f"race {number}", by_name[verdict.name], grades, kept=verdict.kept, reason=verdict.reason)
            ranked = [by_name[verdict.name] for verdict in verdicts]
            left = [by_name[verdict.name] for verdict in verdicts if verdict.kept]
            say(f"race: {size} prompts, {len(left)} of {len(verdicts)} candidates go on; ahead: {ranked[0].name}")
            if len(left) <= min(cuts):
                break  # nothing is left to decide
        return [candidate for candidate in ranked if candidate in left]

    def finalists(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best single directions, and for each subspace its best alpha on the race's prompts."""
        config, requests = self.session.config.sweep, self.inputs.race
        subspaces = [*self.grid.best_of(ranked), *self.grid.listed()]
        chosen = list(ranked[: config.finalists])
        if len(config.alphas) > 1 and subspaces:
            self.rollouts.make(subspaces, requests, config.short_tokens)
            subspaces = self.rollouts.working(subspaces)
            for candidate in subspaces:
                self._note("race subspaces", candidate, self.grades(candidate, requests))
        for group in dict.fromkeys(candidate.group for candidate in subspaces):
            members = [candidate for candidate in subspaces if candidate.group == group]
            chosen.append(max(members, key=lambda c: self.grades(c, requests).product) if len(members) > 1 else members[0])
        return chosen

    def selected(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Full length on all selection prompts; the candidates, best first."""
        requests, base = self.inputs.selection, self.grid.base()
        everyone = [base, *candidates]
        self.rollouts.make(everyone, requests, self.session.config.sampling.max_tokens)
        self.rollouts.add_likelihoods(self.rollouts.working(everyone), requests)
        working = self.rollouts.working(candidates)
        ranked = sorted(working, key=lambda candidate: (-self.grades(candidate, requests).product, candidate.name))
        for candidate in (base, *ranked):
            self._note("selection", candidate, self.grades(candidate, requests))
        return ranked

    def exhaust(self) -> list[Candidate]:
        """Every single direction and subspace at full length on the selection prompts; the finalists, best first."""
        config = self.session.config.sweep
        singles = [candidate for candidate in self.selected(self.grid.singles()) if candidate.kind == SINGLE]
        subspaces = self.selected([*self.grid.best_of(singles), *self.grid.listed()])
        best = {candidate.group: candidate for candidate in reversed(subspaces)}
        finalists = [*singles[: config.finalists], *best.values()]
        return sorted(finalists, key=lambda candidate: -self.grades(candidate, self.inputs.selection).product)

    def confirmed(self, finalists: Sequence[Candidate]) -> list[Candidate]:
        """Stage 3: base, finalists and the winner's controls on the test prompts, which chose none of them."""
        everyone = [self.grid.base(), *finalists, *self.grid.controls(finalists[0])]
        self.rollouts.make(everyone, self.inputs.test, self.session.config.sampling.max_tokens)
        self.rollouts.add_likelihoods(self.rollouts.working(everyone), self.inputs.test)
        return everyone

    def grades(self, candidate: Candidate, requests: Sequence[Request]) -> Grades:
        return self.rollouts.grades(candidate, requests)

    def _note(self, stage: str, candidate: Candidate, grades: Grades | None = None, **more: Any) -> None:
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
    """n, and compliance, coherence and their product with 95 % intervals."""
    from judging import statistics

    known = grades.known
    columns = [grades.compliance[known].tolist(), grades.coherence[known].tolist()]
    named = {
        "compliance": statistics.mean(columns[0]),
        "coherence": statistics.mean(columns[1]),
        "product": statistics.product_of_means(columns),
    }
    row: Row = {"n": len(columns[0])}
    for name, estimate in named.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


def directions_of_sweep(session: Session, run_dir: RunDir) -> Grid:
    """The grid, from the run directory's directions by position, extracted where they are missing."""
    positions = session.offsets(session.config.sweep.positions)
    files = {(name, kind): direction_file(run_dir.path, name, kind) for name in positions for kind in ("true", "shuffled")}
    inputs = session.directions_inputs() | {"positions": positions, "seed": session.config.sweep.seed}

    def work() -> None:
        extraction = extract(session, positions)
        run_dir.file("directions").mkdir(exist_ok=True)
        for name in positions:
            save_directions(files[name, "true"], extraction.directions[name], provenance(session))
            save_directions(files[name, "shuffled"], extraction.shuffled[name], {**provenance(session), "labels": "shuffled"})

    run_dir.run_stage("directions", inputs, [str(file.relative_to(run_dir.path)) for file in files.values()], work)
    loaded = {key: load_directions(file) for key, file in files.items()}
    true, shuffled = ({name: loaded[name, kind] for name in positions} for kind in ("true", "shuffled"))
    return Grid(session, true, shuffled)


def direction_file(folder: Path, position: str, kind: str) -> Path:
    """Where a sweep keeps the directions of a position."""
    suffix = "" if kind == "true" else "-shuffled"
    return folder / "directions" / f"{position.replace(':', '')}{suffix}.safetensors"
