"""Several engines as Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

Tasks go to whoever is free; results come back through Ray, so nodes share nothing but the model's path. A lost actor's
task is done again by another, and the actor is replaced.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.cluster import connect
from engine.config import RunConfig
from engine.environment import has_gpu, release_gpu_memory, set_environment
from engine.errors import EngineError
from engine.progress import say
from engine.replica import Replica, engine_arguments
from engine.session import Session
from engine.sweep.placement import share_of_cores
from engine.sweep.work import MAX_ATTEMPTS, Host, Result, Task, failed
from engine.variants import Variant

START_SECONDS = 1800  # an engine on a large model takes minutes
Job = tuple[Any, Task, int]  # an actor, what it does, and which attempt this is


class EngineActor:
    """Runs in a Ray worker: an engine of its own, on its own GPUs or cores."""

    def __init__(self, config: RunConfig, model_dir: Path, base: Variant, place: int, count: int, **limits: int | None) -> None:
        if not has_gpu():  # two engines with threads on the same cores are twenty times slower
            os.sched_setaffinity(0, share_of_cores(place, count))
        # The engine in this very process: killed, an actor leaves nothing behind that holds a GPU's memory.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        set_environment()
        # Computed here: the driver may be a head node without a GPU, or with another one.
        self.host = Host(Replica(engine_arguments(config, model_dir, has_gpu=has_gpu(), **limits), base))

    def do(self, task: Task) -> Result:
        return self.host.do(task)

    def process_id(self) -> int:
        return os.getpid()


class RayEngines:
    """`count` engines, started with the first tasks. Raises EngineError for one that does not start."""

    def __init__(self, session: Session, count: int) -> None:
        self.session = session
        self.count = count
        self._started: list[Any] = []
        self._proven: set[Any] = set()  # engines that came up
        self._losses = 0  # since a task came through

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Results as they come, in no order. Raises EngineError where engines do nothing but fail."""
        import ray

        waiting = [(task, 1) for task in reversed(tasks)]
        if waiting:
            self._start(min(self.count, len(tasks)))
        free = list(self._started)
        running: dict[Any, Job] = {}
        while waiting or running:
            _hand_out(waiting, free, running)
            ready = ray.wait(list(running), num_returns=1)[0][0]
            actor, task, attempt = running.pop(ready)
            try:
                result: Result | None = ray.get(ready)
                self._losses = 0
                self._proven.add(actor)
            except ray.exceptions.RayError as error:
                attempt -= actor not in self._proven  # an engine that never came up is not the task's fault
                actor, result = self._replace(actor), self._lost(task, attempt, _reason(error))
            if result is None:
                waiting.insert(0, (task, attempt + 1))  # last: another engine is likely to take it
            free.append(actor)
            _hand_out(waiting, free, running)  # no engine idles while the caller stores and grades
            if result is not None:
                yield result

    def _lost(self, task: Task, attempt: int, reason: str) -> Result | None:
        """The failed task's result; None where it is tried again."""
        say(f"{task.variant.name}: its engine was lost, {attempt} of {MAX_ATTEMPTS} attempts are used ({reason})")
        self._losses += 1
        if self._losses > MAX_ATTEMPTS * (self.count + 1):
            raise EngineError(f"{self._losses} tasks in a row failed, the last with {reason}. Finished work is kept.")
        return failed(task, reason) if attempt == MAX_ATTEMPTS else None

    def close(self) -> None:
        import ray

        for actor in self._started:
            ray.kill(actor)
        self._started = []
        ray.shutdown()

    def _start(self, count: int) -> None:
        import ray

        connect()
        release_gpu_memory()
        new = [self._actor(place) for place in range(len(self._started), count)]
        self._started += new
        try:
            ray.get([actor.process_id.remote() for actor in new], timeout=START_SECONDS)
        except ray.exceptions.RayError as error:
            raise EngineError(f"An engine did not start in its Ray actor within {START_SECONDS} s: {_reason(error)}") from error
        self._proven |= set(new)

    def _actor(self, place: int) -> Any:
        import ray

        gpu = has_gpu()
        width = int(self.session.config.vllm.get("tensor_parallel_size", self.session.width or 1))
        threads = {"OMP_NUM_THREADS": str(len(share_of_cores(place, self.count)))}  # Ray's own choice is 1
        options = {"num_gpus": width} if gpu else {"num_cpus": 0, "runtime_env": {"env_vars": threads}}
        where = f"{width} GPU(s)" if gpu else "a share of the CPU cores"
        say(f"engine {place + 1} of {self.count}: starting in a Ray actor ({where})")
        session = self.session
        model = (session.config, session.checkpoint.directory, session.base)
        limits = {"window": session.window, "width": session.width}
        return ray.remote(EngineActor).options(**options).remote(*model, place, self.count, **limits)

    def _replace(self, actor: Any) -> Any:
        import ray

        place = self._started.index(actor)
        ray.kill(actor)
        self._started[place] = self._actor(place)
        return self._started[place]


def _hand_out(waiting: list[tuple[Task, int]], free: list[Any], running: dict[Any, Job]) -> None:
    while waiting and free:
        task, attempt = waiting.pop()
        actor = free.pop(0)
        running[actor.do.remote(task)] = (actor, task, attempt)


def room_on_cluster(resource: str, width: int) -> int:
    """Engines of `width` GPUs (or CPUs) that the nodes of the cluster hold: what an engine takes is on one node."""
    import ray

    return sum(int(node["Resources"].get(resource, 0)) // width for node in ray.nodes() if node["Alive"])


def _reason(error: Exception) -> str:
    lines = [line for line in str(getattr(error, "cause", None) or error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
