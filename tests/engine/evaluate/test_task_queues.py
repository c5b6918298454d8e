"""Which neighbouring tasks are one queue."""

from typing import Any

from engine.configs.schema import SamplingConfig
from engine.evaluate.tasks import Task, queues
from engine.models.variant import Variant


def task(name: str, prompts: int = 2, *, scored: bool = False, max_tokens: int = 8) -> Task:
    variant: Any = Variant("base" if scored else name, "hash", None, None)  # type: ignore[arg-type]
    ids = tuple(((1,),) * prompts)
    sampling = SamplingConfig(max_tokens=max_tokens)
    return Task(variant, name, tuple(map(str, range(prompts))), ids, sampling, ids if scored else None)


def sizes(tasks: list[Task], most: int = 6, *, generations: bool = True, likelihoods: bool = True) -> list[list[str]]:
    found = queues(tasks, most, generations=generations, likelihoods=likelihoods)
    return [[one.subject for one in queue] for queue in found]


def test_a_queue_ends_before_it_has_too_many_prompts() -> None:
    assert sizes([task("a"), task("b"), task("c"), task("d")]) == [["a", "b", "c"], ["d"]]


def test_a_task_larger_than_a_queue_is_one() -> None:
    assert sizes([task("a", 9), task("b")]) == [["a"], ["b"]]


def test_generation_and_likelihoods_are_two_queues() -> None:
    assert sizes([task("a"), task("b", scored=True), task("c", scored=True)]) == [["a"], ["b", "c"]]


def test_other_sampling_is_another_queue() -> None:
    assert sizes([task("a"), task("b", max_tokens=9)]) == [["a"], ["b"]]


def test_where_variants_do_not_mix_each_generates_by_itself() -> None:
    assert sizes([task("a"), task("b")], generations=False) == [["a"], ["b"]]


def test_likelihoods_stay_apart_where_asked() -> None:
    assert sizes([task("a", scored=True), task("b", scored=True)], likelihoods=False) == [["a"], ["b"]]


def test_no_task_is_lost() -> None:
    tasks = [task(str(number), 1 + number % 4, scored=number % 5 == 0) for number in range(40)]
    assert [name for queue in sizes(tasks) for name in queue] == [one.subject for one in tasks]
