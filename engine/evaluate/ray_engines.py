"""Several engines as Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

Tasks go to whoever is free; results come back through Ray, so nodes share nothing but the model's path. A lost actor's
task is done again by another, and the actor is replaced.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from engine.cluster import connect, share_of_cores
from engine.display.progress import say
from engine.environment import has_gpu, release_gpu_memory, set_environment
from engine.errors import EngineError
from engine.evaluate.tasks import MAX_ATTEMPTS, Host, Result, Task, failed
from engine.inference.arguments import engine_arguments
from engine.inference.replica import Replica
from engine.models.variant import Variant
from engine.runs.session import Session

SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}  # threads that wait do not spin on cores that others work on
START_SECONDS = 1800  # an engine on a large model takes minutes
Job = tuple[Any, Task, int]  # an actor, what it does, and which attempt this is


class EngineActor:
    """Runs in a Ray worker: an engine of its own, on its own GPUs or cores."""

    def __init__(self, inputs: dict[str, Any], base: Variant, place: int, count: int) -> None:
        """`inputs` are those of `engine_arguments`, which are computed here: the driver may have another GPU, or none."""
        if not has_gpu():  # two engines with threads on the same cores are twenty times slower
            os.sched_setaffinity(0, share_of_cores(place, count))
        # The engine in this very process: killed, an actor leaves nothing behind that holds a GPU's memory.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        set_environment()
        self.host = Host(Replica(engine_arguments(**inputs, has_gpu=has_gpu()), base))

    def do(self, task: Task) -> dict[str, Any]:
        """A result's fields, but for the task: the driver has it."""
        return without_task(self.host.do(task))

    def process_id(self) -> int:
        return os.getpid()


def without_task(result: Result) -> dict[str, Any]:
    """A result's fields as they are sent to the driver, which has the task."""
    return {name: value for name, value in vars(result).items() if name != "task"}


class RayEngines:
    """`count` engines, started with the first tasks. Raises EngineError for one that does not start.

    `actor` is the class they are of, called with `inputs` (`engine_arguments`' by default), the base, a place and the count.
    """

    def __init__(self, session: Session, count: int, *, actor: type = EngineActor, inputs: dict[str, Any] | None = None) -> None:
        self.session = session
        self.count = count
        own = {"config": session.config, "model_dir": session.checkpoint.directory, "window": session.window}
        self._class, self._inputs = actor, inputs or own | {"width": session.width}
        self.options: dict[str, Any] = {}  # of Ray's for the actors, beside our own
        self._started: list[Any] = []
        self._proven: set[Any] = set()  # engines that came up
        self.lost = 0  # engines that were replaced
        self._losses = 0  # since a task came through

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """Results as they come, in no order. Raises EngineError where engines do nothing but fail."""
        import ray

        waiting = Waiting(tasks, ahead=self.count)
        if waiting.first:
            self.start(len(waiting.first))
        free = list(self._started)
        running: dict[Any, Job] = {}
        _hand_out(waiting, free, running)
        while running:
            ready = ray.wait(list(running), num_returns=1)[0][0]
            actor, task, attempt = running.pop(ready)
            try:
                result: Result | None = Result(task=task, **ray.get(ready))
                self._losses = 0
                self._proven.add(actor)
            except ray.exceptions.RayError as error:
                attempt -= actor not in self._proven  # an engine that never came up is not the task's fault
                actor, result = self._replace(actor), self._lost(task, attempt, _reason(error))
            if result is None:
                waiting.again.append((task, attempt + 1))
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
            self._end(actor)
        self._started = []
        ray.shutdown()

    def start(self, count: int) -> None:
        """Have `count` engines up. Raises EngineError for one that does not come up."""
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
        threads = {"OMP_NUM_THREADS": str(len(share_of_cores(place, self.count)) or 1), **SHARED_CORES}  # Ray's own choice is 1
        options = {"num_gpus": width} if gpu else {"num_cpus": 0, "runtime_env": {"env_vars": threads}}
        where = f"{width} GPU(s)" if gpu else "a share of the CPU cores"
        say(f"engine {place + 1} of {self.count}: starting in a Ray actor ({where})")
        options |= self.options
        return ray.remote(self._class).options(**options).remote(self._inputs, self.session.base, place, self.count)

    def _replace(self, actor: Any) -> Any:
        self.lost += 1
        place = self._started.index(actor)
        self._end(actor)
        self._started[place] = self._actor(place)
        return self._started[place]

    def _end(self, actor: Any) -> None:
        import ray

        ray.kill(actor)


class Waiting:
    """Tasks to be done: those of an iterator, taken as they are needed, then those to be tried again.

    Tried again last: another engine is likely to take them. `first` holds the `ahead` tasks that are taken at once.
    """

    def __init__(self, tasks: Iterable[Task], ahead: int) -> None:
        self._rest = iter(tasks)
        self.first = deque(islice(self._rest, ahead))
        self.again: deque[tuple[Task, int]] = deque()

    def take(self) -> tuple[Task, int] | None:
        """A task and which attempt it is; None where nothing waits."""
        if self.first:
            return self.first.popleft(), 1
        task = next(self._rest, None)
        if task is not None:
            return task, 1
        return self.again.popleft() if self.again else None


def _hand_out(waiting: Waiting, free: list[Any], running: dict[Any, Job]) -> None:
    while free and (job := waiting.take()):
        task, attempt = job
        actor = free.pop(0)
        running[actor.do.remote(task)] = (actor, task, attempt)


def room_on_cluster(resource: str, width: int) -> int:
    """Engines of `width` GPUs (or CPUs) that the nodes of the cluster hold: what an engine takes is on one node."""
    import ray

    return sum(int(node["Resources"].get(resource, 0)) // width for node in ray.nodes() if node["Alive"])


def _reason(error: Exception) -> str:
    lines = [line for line in str(getattr(error, "cause", None) or error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
