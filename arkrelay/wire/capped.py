"""Connections of an HTTP client that take so many bytes of an answer and no more, whatever these bytes are.

aiohttp bounds what waits of a body until somebody reads it, each line of a head, and the number of its fields. All
else it takes for as long as it comes: interim responses (RFC 9110 §15.2), and the extensions of chunks (RFC 9112
§7.1.1). Of these who waits for the answer sees nothing, so one server that sends nothing else keeps the event loop
busy until the deadline. So what comes is counted where it comes in.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

LEAVE_S = 0.01  # for our own closure alert to go out; RFC 9112 §9.8 lets a client not wait for the other


class AnswerTooLong(aiohttp.ClientError):
    """The cap was reached before the answer ended, or before as much of it came as was wanted."""


class Capped(aiohttp.TCPConnector):
    """A connector of whose connections each ends when more than ``cap_bytes`` came of one answer.

    Who still waits for something of that answer gets AnswerTooLong.
    """

    def __init__(self, cap_bytes: int, **settings: Any) -> None:
        super().__init__(**settings)
        # aiohttp has no setting for this; when it renames the attribute, the tests of endless answers fail
        make: Callable[..., ResponseHandler] = _Handler
        self._factory = functools.partial(make, cap_bytes, self._loop)


class _Handler(ResponseHandler):
    """One connection."""

    def __init__(self, cap_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._cap_bytes = cap_bytes
        self._came_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin another exchange: aiohttp calls this once for each request."""
        self._came_bytes = 0
        self._payload = None  # the body of the last answer
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Take what came, as far as the cap lets it, and end the connection there."""
        room = self._cap_bytes - self._came_bytes
        self._came_bytes += len(data)
        if self._came_bytes <= self._cap_bytes:
            super().data_received(data)
        elif room >= 0:
            super().data_received(data[:room])
            self._loop.call_soon(self._cut)  # after who reads: all that it wanted may be there

    def close(self) -> None:
        """End the connection, at once where an answer has not ended.

        Else TLS takes leave (RFC 9112 §9.8), and asyncio reads on until the peer does too, for 30 s and whatever it
        sends: that is not waited for.
        """
        transport = self.transport
        if transport is None or self._payload is None or not self._payload.is_eof():
            self.abort()
        else:
            super().close()
            self._loop.call_later(LEAVE_S, transport.abort)

    def _cut(self) -> None:
        if self._came_bytes <= self._cap_bytes or self.transport is None:
            return  # there is another exchange, or whoever read has closed the connection
        error = AnswerTooLong(self._cap_bytes)
        payload = self._payload
        self.abort()
        if payload is not None:
            payload.set_exception(error)
        self.set_exception(error)
