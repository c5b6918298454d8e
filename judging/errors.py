"""The two kinds of error between a response and its grades.

A user's mistake, or an endpoint that refuses everything, is a JudgeError and ends the command. A Fault is one attempt that went
wrong. It stays inside the worker, which decides whether the call is made again; if not, it is the `error` of a missing score.
A fault's kind never changes. What it means can depend on what came before, as said here:

    busy         the endpoint asked for a slower pace (429)                      tried again until the call's deadline
    loading      the server is loading its model (503)                           waited for, up to `loading_s`
    passing      timeout, connection lost, 5xx, a body that is no reply          tried again, a few times
    unreachable  nothing answers at the address                                  the same; at the start, the end
    unusable     a reply without a verdict (garbage, wrong grade, cut, refusal)  asked once more
    adapted      an optional field was refused                                   asked again without it, at once
    refused      the endpoint will not take this request (400, content filter)   not tried again in this run; at first as `barred`
    page         a web page or a stream in place of a reply                      before any success `barred`, later `passing`
    barred       forbidden, not found, moved (403, 404, 301)                     the end if a harmless probe fares alike
    fatal        key or account refused (401, 402)                               no call can succeed: all stop

An error inside a reply of status 200 is treated as the status that it names.
"""

from typing import Literal

FaultKind = Literal["busy", "loading", "passing", "unreachable", "unusable", "adapted", "refused", "page", "barred", "fatal"]


class JudgeError(Exception):
    """A judge, rubric or table of scores that cannot be used as asked."""


class Fault(Exception):
    """One attempt of one call that brought no verdict.

    kind: what went wrong, read-only.
    retry_after: seconds the endpoint asked to wait.
    strained: the endpoint seems to have more to do than it can (5xx, timeout).
    fields: optional fields of a request that the endpoint's words may refuse, the likeliest first.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str,
        *,
        retry_after: float | None = None,
        raw_reply: str | None = None,
        strained: bool = False,
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self._kind = kind
        self.retry_after = retry_after
        self.raw_reply = raw_reply
        self.strained = strained
        self.fields = fields

    @property
    def kind(self) -> FaultKind:
        return self._kind
