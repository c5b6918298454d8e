"""Decisions of the worker: the same fault ends a call or is tried again, by what came before it."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from judging.errors import Fault, JudgeError
from tests.judging.chaos import Chaos
from tests.judging.test_chaos import items_of, judge_at, run


def answer_pages(chaos: Chaos, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The next `count` attempts get a web page in place of a reply."""
    answer, left = chaos.reply, iter(range(count))

    async def reply(*arguments: Any) -> web.StreamResponse:
        if next(left, None) is not None:
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        return await answer(*arguments)

    monkeypatch.setattr(chaos, "reply", reply)


def test_a_faults_kind_is_read_only() -> None:
    fault = Fault("page", "a web page")
    with pytest.raises(AttributeError):
        fault.kind = "passing"  # type: ignore[misc]


def test_a_web_page_after_a_success_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Chaos() as server:
        judge = judge_at(server, tmp_path)
        run(judge, items_of(1))
        answer_pages(server, monkeypatch, 1)
        [_, second] = run(judge, items_of(2))
        judge.close()
        assert second.error is None
        assert second.attempts == 2


def test_web_pages_before_any_success_stop_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Chaos() as server:
        answer_pages(server, monkeypatch, 1000)
        judge = judge_at(server, tmp_path)
        with pytest.raises(JudgeError, match=r"the reply is a web page.*Check base_url"):
            run(judge, items_of(1))
        judge.close()
        assert server.attempts.total() == 2, "the call and a harmless question"


def test_a_web_page_before_any_success_ends_its_call_where_a_harmless_question_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Chaos() as server:
        answer_pages(server, monkeypatch, 1)
        judge = judge_at(server, tmp_path)
        [found] = run(judge, items_of(1))
        judge.close()
        assert found.error == "refused: the reply is a web page, not a chat completion"
        assert judge.stopped is None
