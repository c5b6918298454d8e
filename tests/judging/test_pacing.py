"""Concurrency, the account's limits and the breaker, on a clock of the test's own."""

import asyncio

import pytest

from judging.pacing import START, Breaker, Quota, Slots


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_slots_double_a_round_trip_until_the_endpoint_is_busy_and_then_halve_once() -> None:
    async def play() -> None:
        clock = Clock()
        slots = Slots(64, clock=clock)
        for trip in range(3):
            assert slots.limit == START * 2**trip
            for _ in range(int(slots.limit)):
                slots.succeeded()
        sent_at, clock.now = clock.now, clock.now + 1
        for _ in range(10):  # ten calls of the same burst are told so
            slots.busy(sent_at, None)
        assert slots.limit == 16
        for _ in range(16):
            slots.succeeded()
        assert 16.9 < slots.limit < 17  # one more a round trip from here
        slots.busy(clock.now + 1, None)
        assert slots.limit == pytest.approx(8.5, abs=0.1)
        for _ in range(500):
            slots.busy(clock.now + 2, None)
            clock.now += 3
        assert slots.limit == 1

    asyncio.run(play())


def test_the_ceiling_holds_and_failures_pause_growth() -> None:
    async def play() -> None:
        clock = Clock()
        slots = Slots(10, clock=clock)
        slots.troubled()
        slots.succeeded()
        assert slots.limit == START
        clock.now += 10
        for _ in range(50):
            slots.succeeded()
        assert slots.limit == 10
        running = [await slots.acquire() for _ in range(10)]
        waiting = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        assert len(running) == slots.active == 10
        assert not waiting.done()
        slots.release()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(play())


def test_a_retried_call_goes_ahead_of_those_that_have_not_started() -> None:
    async def play() -> None:
        slots = Slots(1)
        await slots.acquire()
        order: list[str] = []

        async def wait(name: str, ahead: bool) -> None:
            await slots.acquire(ahead=ahead)
            order.append(name)
            slots.release()

        tasks = [asyncio.create_task(wait("new", False)), asyncio.create_task(wait("again", True))]
        await asyncio.sleep(0)
        slots.release()
        await asyncio.wait_for(asyncio.gather(*tasks), 1)
        assert order == ["again", "new"]

    asyncio.run(play())


def test_nothing_is_sent_while_the_endpoint_asked_to_wait() -> None:
    async def play() -> None:
        slots = Slots(4)
        sent_at = await slots.acquire()
        slots.busy(sent_at, 0.2)
        slots.release()
        assert await asyncio.wait_for(slots.acquire(), 2) - sent_at >= 0.2

    asyncio.run(play())


def test_a_quota_spaces_requests_and_tokens_evenly() -> None:
    clock = Clock()
    requests = Quota(60, None, clock=clock)
    assert [requests.reserve(1000) for _ in range(4)] == [0, 1, 2, 3]
    clock.now += 10
    assert requests.reserve(1000) == 0  # unused time is not saved up
    tokens = Quota(None, 6000, clock=clock)  # 100 a second
    assert [tokens.reserve(200) for _ in range(3)] == [0, 2, 4]
    tokens.settle(-200)  # the last one was free after all
    assert tokens.reserve(100) == 4


def test_the_breaker_needs_many_failures_over_some_time() -> None:
    clock = Clock()
    breaker = Breaker(3, 10, clock=clock)
    assert [breaker.failed() for _ in range(5)] == [False] * 5
    clock.now += 11
    assert breaker.failed()
    breaker.succeeded()
    assert not breaker.failed()
    assert breaker.proven
