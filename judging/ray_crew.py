"""A crew of Ray actors, each a worker with its own client; one more actor keeps the account's rate limits.

Ray is running when this is made: the engine starts it, or joins the cluster that RAY_ADDRESS names. An actor that is lost is
replaced, and its calls under way are made again.

There is no lock here: the fan-out's thread alone calls the crew. It waits for actors in `ray.wait` alone, at most for
`collect`'s timeout. The constructor, which a thread of the Relay runs, waits for all of them to start. Actors wait for the
endpoint and for the rate limits, never for the fan-out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from judging.calls import Call, Outcome
from judging.costs import worst_cost
from judging.endpoint import Endpoint
from judging.errors import JudgeError
from judging.judge import Hooks
from judging.pacing import Quota
from judging.worker import Worker

MAX_LOSSES = 3  # actors lost in a row before judging gives up
START_S = 120
# Coroutines of an actor's methods at once. `collect` waits inside one of them as long as nothing has ended; `begin` must be
# able to start beside it, or an idle actor could never be given a call.
CALLS_AT_ONCE = 1000


class WorkerActor(Worker):
    """A worker in a Ray actor: built inside the actor's event loop, with the limits' actor as its quota."""

    def __init__(self, endpoint: Endpoint, hooks: Hooks, key: SecretStr | None, ceiling: int, quota: Any) -> None:
        kept = RayQuota(quota) if quota is not None else None
        super().__init__(endpoint, hooks, key, ceiling=ceiling, quota=kept, proven=True, live=True)

    async def ready(self) -> bool:
        """True, once the actor's constructor has run."""
        return True


class RayQuota:
    """The account's rate limits, kept by a Ray actor that all workers share."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def reserve(self, tokens: int) -> float:
        return float(await self._actor.reserve.remote(tokens))

    async def settle(self, tokens: int) -> None:
        # Not awaited: a correction that arrives late only makes the next wait a little wrong.
        self._actor.settle.remote(tokens)


class RayCrew:
    """`endpoint.workers` actors for an endpoint that has just answered. Raises JudgeError where they do nothing but die."""

    def __init__(self, endpoint: Endpoint, hooks: Hooks, key: SecretStr | None) -> None:
        import ray

        self._endpoint, self._hooks, self._key = endpoint, hooks, key
        limits = endpoint.requests_per_minute, endpoint.tokens_per_minute
        # One actor that runs one method at a time: reservations of all workers queue there, so the limits hold over all.
        self._quota = ray.remote(Quota).options(num_cpus=0).remote(*limits) if endpoint.is_limited else None
        count = min(endpoint.workers, endpoint.max_concurrency)
        share, more = divmod(endpoint.max_concurrency, count)
        self._ceilings = [share + (place < more) for place in range(count)]
        self._actors = [self._start(ceiling) for ceiling in self._ceilings]
        self._lost: Counter[bytes] = Counter()
        # Each actor's calls are kept here too: an actor that dies takes its own list with it.
        self._under_way: dict[Any, dict[bytes, Call]] = {actor: {} for actor in self._actors}
        try:
            ray.get([actor.ready.remote() for actor in self._actors], timeout=START_S)
        except ray.exceptions.RayError as error:
            raise JudgeError(f"The judge's Ray actors did not start: {error}") from error
        # Every actor has one `collect` in progress, which Ray answers when calls have ended or the actor has died.
        self._collecting = {actor.collect.remote(): actor for actor in self._actors}
        self._losses = 0

    def assign(self, calls: Sequence[Call]) -> None:
        share = -(-len(calls) // len(self._actors))
        for start in range(0, len(calls), share):
            actor = min(self._under_way, key=lambda one: len(self._under_way[one]))
            self._assign_to(actor, calls[start : start + share])

    def collect(self, timeout_s: float) -> list[Outcome]:
        import ray

        if not ray.wait(list(self._collecting), num_returns=1, timeout=timeout_s)[0]:
            return []
        ready, _ = ray.wait(list(self._collecting), num_returns=len(self._collecting), timeout=0)
        outcomes: list[Outcome] = []
        for reference in ready:
            actor = self._collecting.pop(reference)
            try:
                found = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._replace(actor, error)
                continue
            self._losses = 0
            outcomes += [self._counted(actor, outcome) for outcome in found]
            self._collecting[actor.collect.remote()] = actor
        return outcomes

    def close(self) -> None:
        import ray

        for actor in [*self._actors, *([self._quota] if self._quota is not None else [])]:
            ray.kill(actor)
        self._actors = []

    def _counted(self, actor: Any, outcome: Outcome) -> Outcome:
        """The outcome, with the most that a lost actor may have spent on the same call."""
        call = self._under_way[actor].pop(outcome.key, None)
        if call is not None and (times := self._lost.pop(call.key, 0)):
            outcome.unsure_cost += times * worst_cost(self._endpoint, call)
        return outcome

    def _assign_to(self, actor: Any, calls: Sequence[Call]) -> None:
        self._under_way[actor] |= {call.key: call for call in calls}
        actor.begin.remote(list(calls))

    def _start(self, ceiling: int) -> Any:
        import ray

        options = {"num_cpus": 0, "max_concurrency": CALLS_AT_ONCE}
        actor = ray.remote(WorkerActor).options(**options)
        return actor.remote(self._endpoint, self._hooks, self._key, ceiling, self._quota)

    def _replace(self, actor: Any, error: Exception) -> None:
        import ray

        self._losses += 1
        if self._losses > MAX_LOSSES:
            raise JudgeError(f"The judge's Ray actors are lost one after the other ({type(error).__name__}). Run again.")
        ray.kill(actor)
        calls = list(self._under_way.pop(actor).values())
        self._lost.update(call.key for call in calls)
        place = self._actors.index(actor)
        new = self._actors[place] = self._start(self._ceilings[place])
        self._under_way[new] = {}
        self._assign_to(new, calls)
        self._collecting[new.collect.remote()] = new
