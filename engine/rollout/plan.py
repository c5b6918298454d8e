"""What a run would do, looked at and not done: stages, prompts, tokens, judge calls, money, disk and time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from editing.checkpoint import free_bytes
from engine.configs.schema import RunConfig
from engine.inference.answers import check_taken_up
from engine.rollout.directions import check_given_directions
from engine.runs import timings
from engine.runs.files import DIRECTIONS, LIKELIHOODS, MANIFEST, ROLLOUTS, SCORES, SUMMARY, VIEWS
from engine.runs.identity import check_same
from engine.runs.machine import check_machine
from engine.runs.manifest import read_manifest
from engine.runs.of_config import given_layers
from engine.runs.requests import Request
from engine.runs.run_dir import RunDir, check_run_dir, check_space
from engine.runs.selection import check_tested_apart
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge
from judging.estimate import estimate
from judging.judgement import Item
from judging.remote import call_of
from judging.view import CONTROLS, VIEWED_TOKENS

BYTES_PER_ROW = 8192  # of rollouts, shards and scores, generously
BYTES_A_TOKEN = 4  # of text, to word a response that is not there yet
DONE, TO_DO = "done", "to do"


@dataclass
class Stage:
    """One stage: done or to do, how much, tokens (of new text at most), seconds, and whether those are measured or rough."""

    name: str
    state: str
    amount: str
    tokens: int
    seconds: float
    basis: str
    rows: int = 0


@dataclass
class Plan:
    """Everything that would be done. `judge` is what the judge's calls take; bytes are of the disk."""

    command: str
    folder: str
    config: Mapping[str, Any]
    stages: list[Stage] = field(default_factory=list)
    judge: dict[str, Any] = field(default_factory=dict)
    needed_bytes: int = 0
    free_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of all that is to do."""
        return sum(stage.seconds for stage in self.stages if stage.state == TO_DO)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


def plan_run(config: RunConfig, path: Path) -> Plan:
    """What bin/rollout would do in `path`. Raises, as the run itself would, for what cannot run; nothing is written or sent."""
    check_run_dir(path)
    session = check_only(config)
    judge = RunJudge(config.judge, 2 * len(session.requests))
    judge.check_at_hand()
    plan = plan_of(session, judge, path)
    plan.judge = judging(judge, session.requests, 2, config.sampling.max_tokens)
    if "seconds" in plan.judge:
        plan.stages[-1].seconds, plan.stages[-1].basis = plan.judge["seconds"], "at the endpoint's limits"
    return plan


def expected_seconds(session: Session, judge: RunJudge, path: Path) -> dict[str, float]:
    """Seconds that each line of a run's progress will take, by its name; nothing for what is done."""
    plan = plan_of(session, judge, path)
    found = {stage.name: stage.seconds for stage in plan.stages if stage.state == TO_DO}
    rollouts = found.pop(timings.ROLLOUTS, None)
    if rollouts is not None:
        found |= {f"rollouts {name}": rollouts / 2 for name in ("base", session.config.variant)}
    return found


def plan_of(session: Session, judge: RunJudge, path: Path) -> Plan:
    """What is to do and what is done of a run whose inputs were looked at; its last stage is the scores'."""
    config = session.config
    done = finished_files(path, session.identity)
    plan = begin(session, "bin/rollout", path, BYTES_PER_ROW * 2 * len(session.requests) + session.directions_bytes)
    extracts = config.directions.file is None and config.checkpoint is None
    prompts = session.rendered_pairs() if extracts else []
    read = sum(len(side) for pair in prompts for side in (pair.declined, pair.answered))
    rows, most = 2 * len(session.requests), config.sampling.max_tokens
    asked = sum(map(len, session.render(session.requests, "test requests")))
    add(plan, session, timings.DIRECTIONS, DIRECTIONS in done, f"{2 * len(prompts)} prompts", read)
    add(plan, session, timings.ROLLOUTS, ROLLOUTS in done, f"{rows} responses", rows * most)
    if judge.reads == LIKELIHOODS:
        unread = rows // 2  # the base's own come with its responses
        add(plan, session, timings.LIKELIHOODS, LIKELIHOODS in done, f"{unread} responses", unread * most + asked)
    elif judge.reads == VIEWS:
        add(
            plan,
            session,
            timings.LIKELIHOODS,
            VIEWS in done,
            f"{rows} beginnings",
            asked + (1 + len(CONTROLS)) * rows * VIEWED_TOKENS,
            name="views",
        )
    add(plan, session, timings.SCORES, {SCORES, SUMMARY} <= done, f"{rows} responses by {judge.name}", rows)
    return plan


def check_only(config: RunConfig, *, layers: bool = True) -> Session:
    """A session whose files, model, template, prompts and machine were looked at. Raises for what cannot run."""
    if layers:
        given_layers(config)
    session = Session(config)
    check_inputs(session, layers=layers)
    check_machine(session)
    session.check_prompts()
    return session


def check_inputs(session: Session, *, layers: bool = True) -> None:
    """Raise EngineError for what can be told of a run's inputs without rendering a prompt or asking the machine."""
    if layers:
        session.layers()  # all of them in the model
    session.check_swappable()
    if session.config.checkpoint is not None:
        check_taken_up(session.replaced)
    check_given_directions(session)
    check_tested_apart(session)


def begin(session: Session, command: str, path: Path, needed: int) -> Plan:
    """A plan without stages. Raises EngineError where the disk has no room."""
    check_space(path, needed)
    shown = session.config.model_dump(mode="json")
    return Plan(command, str(path), shown, needed_bytes=needed, free_bytes=free_bytes(path))


def add(
    plan: Plan, session: Session, stage: str, done: bool, amount: str, tokens: int, *, name: str | None = None, rows: int = 0
) -> None:
    """Add a stage with the time that it takes here; `name` is what this part of it is called."""
    seconds, basis = (0.0, "") if done else timings.seconds_for(session, stage, tokens)
    plan.stages.append(Stage(name or stage, DONE if done else TO_DO, amount, tokens, round(seconds, 1), basis, rows))


def finished_files(path: Path, identity: Mapping[str, Any]) -> set[str]:
    """The files of a run directory of this identity that are whole. Raises EngineError for one of another identity."""
    if not (path / MANIFEST).exists():
        return set()
    manifest = read_manifest(path)
    check_same(path, manifest["identity"], identity)
    run_dir = RunDir(path, manifest)
    return {name for name in (DIRECTIONS, ROLLOUTS, LIKELIHOODS, VIEWS, SCORES, SUMMARY) if run_dir.is_whole([name])}


def judging(judge: RunJudge, requests: Sequence[Request], variants: int, max_tokens: int) -> dict[str, Any]:
    """What the judge's calls take, each response as long as it may be; only the name where it has no endpoint."""
    found: dict[str, Any] = {"name": judge.name}
    if judge.endpoint is None or judge.file is None:
        return found
    rubric, longest = judge.file.read_rubric(), "x" * (BYTES_A_TOKEN * max_tokens)
    calls = [call_of(judge.endpoint, rubric, Item(request.text, longest)) for request in requests]
    questions = [call.messages for call in calls] * variants * judge.config.repeat
    return found | asdict(estimate(judge.endpoint, questions))
