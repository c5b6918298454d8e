"""A sweep's driver under the load of many engines, on one machine: Ray actors that hold no model and answer at a set rate.

Dispatch, tasks, results, shards, grading, merge and summary are a sweep's own; some actors are killed while they work.
"""

import os
import random
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.benchmarks.modelless import ModellessActor, UngradedRules
from engine.configs.load import load_config
from engine.display.progress import say
from engine.environment import describe
from engine.evaluate.candidates import SINGLE, Candidate
from engine.evaluate.ray_engines import RayEngines
from engine.evaluate.rollouts import TASK_PROMPTS, Rollouts
from engine.evaluate.rules import RayRules, Rules
from engine.evaluate.tasks import Result, Task
from engine.models.variant import Variant
from engine.runs import merging
from engine.runs.files import ROLLOUTS, SCORES
from engine.runs.parquet import ShardedTable
from engine.runs.requests import Request
from engine.runs.run_dir import RunDir
from engine.runs.schemas import ROLLOUT_KEY
from engine.runs.session import Session
from engine.scoring.grader import OfflineGrader

CONFIG = "smollm2_135m_k1"
TOKENS = 200  # of a response
H100_ENGINES, ENGINE_ROWS_PER_SECOND = 64, 500 / 3.6  # 8 nodes of 8; 500 responses of 200 tokens in 3.6 s (3B, one H200)
GIB = 2**30


@dataclass(frozen=True)
class Load:
    """The load on the driver: `rate` in rows a second and engine, `killed` the share of engines killed on the way.

    `per_process` engines share a process (0.4 GB), and die together.
    """

    engines: int = 64
    variants: int = 2000
    rows: int = 500
    rate: float = ENGINE_ROWS_PER_SECOND
    killed: float = 0.05
    graded: bool = True
    per_process: int = 1


class Seat:
    """One engine of a process that holds several; RayEngines takes it for an actor."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.do, self.process_id = process.do, process.process_id


class KilledEngines(RayEngines):
    """Engines in processes, some of which are killed (SIGKILL) while they work, at even distances over the run."""

    def __init__(self, session: Session, load: Load, pids: Path) -> None:
        arguments = {"rate": load.rate, "pids": str(pids), "tokens": TOKENS}
        super().__init__(session, load.engines, actor=ModellessActor, inputs=arguments)
        self.options = {"max_concurrency": load.per_process}
        self.killed = 0
        self._load, self._pids = load, pids
        self._processes: dict[int, Any] = {}
        first_places = range(0, load.engines, load.per_process)
        self._doomed = random.Random(0).sample(first_places, round(load.killed * load.engines / load.per_process))

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        listed = list(tasks)
        kills = {len(listed) * (number + 1) // (len(self._doomed) + 1): place for number, place in enumerate(self._doomed)}
        for number, result in enumerate(super().run(listed), 1):
            yield result
            if number in kills:
                os.kill(int((self._pids / str(kills[number])).read_text()), signal.SIGKILL)
                self.killed += 1

    def _actor(self, place: int) -> Any:
        first = place - place % self._load.per_process
        if first not in self._processes:
            self._processes[first] = super()._actor(first)
        return Seat(self._processes[first])

    def _end(self, actor: Any) -> None:
        super()._end(actor.process)
        self._processes = {first: process for first, process in self._processes.items() if process is not actor.process}


class Meter:
    """The driver's resident size over time, and its processor seconds, from when it is made."""

    def __init__(self) -> None:
        self.started, self.cpu_started = time.monotonic(), cpu_seconds()
        self.sizes: list[tuple[float, int]] = [(0.0, rss())]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.sizes.append((self.seconds, rss()))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def cpu(self) -> float:
        return cpu_seconds() - self.cpu_started

    def gib_at(self, share: float) -> float:
        """Resident GiB at a share of the time that was watched."""
        end = self.sizes[-1][0]
        return round(min(self.sizes, key=lambda size: abs(size[0] - share * end))[1] / GIB, 3)

    def _watch(self) -> None:
        while not self._stopped.wait(0.5):
            self.sizes.append((self.seconds, rss()))


def bench_cluster(load: Load) -> dict[str, Any]:
    """A sweep's generation, merge and figures under this load, each with its seconds and the driver's memory."""
    session = Session(load_config(CONFIG, {"sampling.max_tokens": TOKENS}))
    requests = requests_of(session, load.rows)
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as name:
        folder = Path(name)
        (folder / "pids").mkdir()
        rules: Rules = RayRules() if load.graded else UngradedRules()
        engines = KilledEngines(session, load, folder / "pids")
        rollouts = Rollouts(session, RunDir(folder, {"stages": {}}), engines, OfflineGrader(), rules)
        rollouts.task_prompts = TASK_PROMPTS[True]  # as with GPUs
        try:
            engines.start(load.engines)
            found = generate(rollouts, candidates_of(session, load.variants), requests)
        finally:
            rollouts.close()
        found |= rows_on_disk(rollouts, load) | finish(rollouts, folder)
    return {
        **vars(load),
        **found,
        "killed_processes": engines.killed,
        "lost_actors": engines.lost,
        **what_it_means(load, found),
        "model": "none",
        "ray": version("ray"),
        **describe(),
    }


def generate(rollouts: Rollouts, candidates: Sequence[Candidate], requests: Sequence[Request]) -> dict[str, Any]:
    """Every candidate's responses to every request, stored and graded; what that took of the driver."""
    rollouts.session.render(requests, "requests")  # the tokenizer's own start
    table = rollouts.table = TimedTable(rollouts.table.path, rollouts.table.schema)
    meter = Meter()
    rollouts.make(candidates, requests, TOKENS)
    meter.stop()
    rows, scoring = len(rollouts.lengths), rollouts.scoring
    say(f"cluster: {rows} rows in {meter.seconds:.0f} s, {meter.cpu:.0f} s of the driver's processor time")
    return {
        "rows_made": rows,
        "seconds": round(meter.seconds, 1),
        "rows_per_second": round((rows - table.first) / (table.last_at - table.first_at)),
        "driver_cpu_seconds": round(meter.cpu, 1),
        "driver_rows_per_second": round(rows / meter.cpu),
        "parquet_rows_per_second": round(rows / table.seconds),
        "waited_for_judge_seconds": round(scoring.waited_seconds, 1),
        "judge_core_seconds": round(scoring.busy_seconds, 1),
        **{f"driver_rss_gb_{name}": meter.gib_at(share) for name, share in (("start", 0), ("middle", 0.5), ("end", 1))},
    }


class TimedTable(ShardedTable):
    """Notes the seconds that its shards take, and when the first and the last were there."""

    seconds = first_at = last_at = 0.0
    first = 0

    def extend(self, rows: Any) -> None:
        started = time.monotonic()
        super().extend(rows)
        self.last_at = time.monotonic()
        self.seconds += self.last_at - started
        if not self.first:
            self.first, self.first_at = len(rows), self.last_at


def rows_on_disk(rollouts: Rollouts, load: Load) -> dict[str, Any]:
    """Whether every row is on disk once, by the shards themselves."""
    keys = merging.read_keys(rollouts.table.files(), ROLLOUT_KEY)
    once = len(merging.unique_places(keys, ROLLOUT_KEY))
    wanted = load.variants * load.rows
    return {"rows_on_disk": keys.num_rows, "duplicates": keys.num_rows - once, "rows_once": once == keys.num_rows == wanted}


def finish(rollouts: Rollouts, folder: Path) -> dict[str, Any]:
    """One file of each table in order, then the figures of every variant, each with its seconds and peak memory."""
    from engine.scoring import summary
    from engine.sweep.result import write_scores

    def figures() -> None:
        rows = summary.read_rollouts(folder / ROLLOUTS)
        for judge, scores in summary.read_scores(folder / SCORES).items():
            summary.figures_by(rows, scores, judge=judge)

    steps = {
        "scores": lambda: write_scores(folder, rollouts),
        "merge": lambda: rollouts.table.merge({"prompt_id": None, "variant_hash": None}),
        "summary": figures,
    }
    found: dict[str, Any] = {}
    for name, step in steps.items():
        meter = Meter()
        step()
        meter.stop()
        peak = max(size for _, size in meter.sizes) / GIB
        found |= {f"{name}_seconds": round(meter.seconds, 1), f"{name}_peak_rss_gb": round(peak, 3)}
        say(f"cluster: {name} in {meter.seconds:.1f} s, {peak:.2f} GiB")
    return found


def what_it_means(load: Load, found: dict[str, Any]) -> dict[str, Any]:
    """Where the driver saturates, in engines of an H100 (500 responses of 200 tokens in 3.6 s) and in nodes of eight."""
    offered = load.engines * load.rate
    engines = found["driver_rows_per_second"] / ENGINE_ROWS_PER_SECOND
    a_core = found["rows_made"] / found["judge_core_seconds"] if found["judge_core_seconds"] else None
    return {
        "offered_rows_per_second": round(offered),
        "saturated": found["rows_per_second"] < 0.9 * offered,
        "saturates_at_h100_engines": round(engines),
        "saturates_at_nodes_of_8_h100": round(engines / 8, 1),
        "driver_share_for_64_engines": round(H100_ENGINES / engines, 3),
        "judge_rows_per_core_second": None if a_core is None else round(a_core),
        "judge_cores_for_64_engines": None if a_core is None else round(H100_ENGINES * ENGINE_ROWS_PER_SECOND / a_core, 1),
    }


def requests_of(session: Session, count: int) -> list[Request]:
    """As many requests as asked for: the configuration's, over and over, each with an id of its own."""
    known = session.requests
    return [
        Request(f"declined/{place:05d}", "test", "declined", known[place % len(known)].category, known[place % len(known)].text)
        for place in range(count)
    ]


def candidates_of(session: Session, count: int) -> list[Candidate]:
    """Random directions, each a variant."""
    import torch

    from editing.projection import Edit, orthonormal_basis

    found = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        basis = orthonormal_basis(torch.randn(1, session.checkpoint.hidden_size, generator=generator))
        variant = Variant(f"random{seed}", session.base_hash, session.plan, Edit(basis, 1.0))
        found.append(Candidate(SINGLE, variant.name, (("last", 1),), 1.0, variant))
    return found


def cpu_seconds() -> float:
    """Processor time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss() -> int:
    """Resident bytes of this process, without what it shares with Ray's object store."""
    values = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(values[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024
