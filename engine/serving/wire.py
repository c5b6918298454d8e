"""Below vLLM's server: the head of a request has a most size, and a whole request a most time to arrive in.

uvicorn reads with httptools, which knows neither: vLLM's --h11-max-* bind a parser that is not used where httptools is there.
What uvicorn takes is what stands in its `auto` module when the server starts; `bind` puts a bounded one there.
"""

import asyncio

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 2**17
MOST_SECONDS = 90.0  # more than the door gives a body, so that the door's 408 comes first


class BoundedProtocol(HttpToolsProtocol):
    """One connection: 400 for a long head; closed where nothing, or only a part of a request, came in MOST_SECONDS."""

    head_bytes = 0
    in_head = arriving = False
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._answering():
            self._start_waiting()
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MOST_HEAD_BYTES:
                self.send_400_response(f"The head of a request has {MOST_HEAD_BYTES // 2**10} KiB at most.")

    def on_message_begin(self) -> None:
        self.in_head = self.arriving = True
        self.head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.arriving = False
        self._stop_waiting()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_waiting()
        super().handle_websocket_upgrade()

    def _answering(self) -> bool:
        """Whether the client waits for the server, not the server for the client."""
        return not self.arriving and self.cycle is not None and not self.cycle.response_complete

    def _start_waiting(self) -> None:
        if self.deadline is None:
            self.deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def bind() -> None:
    """Let every uvicorn server that this process starts from now on speak through `BoundedProtocol`."""
    auto.AutoHTTPProtocol = BoundedProtocol
