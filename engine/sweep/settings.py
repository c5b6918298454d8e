"""What a sweep is by its configuration: the requests that confirm, the number of controls, its identity, what it refuses."""

from typing import Any

from engine.configs.schema import RunConfig
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.paths import file_hash
from engine.runs.kinds import TEST
from engine.runs.requests import DECLINED, Request
from engine.runs.session import Session
from engine.scoring.run_judge import RunJudge
from extraction.prompts import resolve

BYTES_PER_ROW = 4096
EXPECTED_RESPONSES = 1000  # a sweep has thousands: what judges them is worth its start


def tested_requests(session: Session) -> list[Request]:
    """The requests that confirm: of the declined kind, and of kinds that chose nothing."""
    return [request for request in session.requests if (request.kind, request.split) == (DECLINED, TEST)]


def check_settings(session: Session) -> None:
    """Raise EngineError for settings of a run that a sweep has no use for."""
    if session.config.directions.file is not None:
        raise EngineError("A sweep extracts directions of its own at every layer. Leave directions.file out.")
    session.check_swappable()


def with_controls(config: RunConfig) -> RunConfig:
    """The configuration with its number of controls settled: 20 of each sort on a GPU, 2 without one."""
    if config.sweep.controls is not None:
        return config
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"controls": 20 if has_gpu() else 2})})


def sweep_identity(session: Session, judge: RunJudge) -> dict[str, Any]:
    """A sweep's identity: the run's, with what is tried and who chooses."""
    data = session.config.data
    identity = session.identity
    hashes = dict(identity["data_hashes"])
    if data.selection_pairs is not None:
        hashes["selection_pairs"] = file_hash(resolve(data.selection_pairs))
    config = session.config.model_dump(mode="json")
    config["estimator"] = config.pop("directions")["estimator"]  # layers and positions are a sweep's own
    return {**identity, "config": config, "data_hashes": hashes, "judge": judge.identity}
