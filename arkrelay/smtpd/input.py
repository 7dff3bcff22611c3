"""Bytes that arrived and were not read yet: bounded, without a private attribute of asyncio."""

import asyncio
from typing import Final

# The transport is paused above HIGH and resumed at LOW. One read of asyncio is at most 256 KB, so a client
# that floods holds at most 384 KB here, whatever it sends.
HIGH: Final = 131_072
LOW: Final = 32_768


class LineTooLong(Exception):
    """A whole line came that is longer than allowed; it has been thrown away."""


class BareLineFeed(Exception):
    """A line ended in LF without CR (RFC 5321 §2.3.8): the client and a proxy may disagree about what it says."""


class Input:
    """What one client has sent; the protocol feeds it, the conversation reads it.

    ``asyncio.StreamReader`` would do, but it hides its buffer: looking for the end of a message, and for bytes
    behind a command that must be the last of its group, needs the bytes as they lie.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.eof = False
        self._transport: asyncio.ReadTransport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._overlong = False
        self._discard_left: int | None = None

    def attach(self, transport: asyncio.ReadTransport | None) -> None:
        """Pause and resume this transport from now on; None: none, while TLS is being set up over it."""
        self._resume()
        self._transport = transport
        self._pause_if_full()

    def feed(self, data: bytes) -> None:
        """Add what arrived, and wake the reader."""
        if self._discard_left is not None:
            self._discard_left -= len(data)
            if self._discard_left < 0:
                self.feed_eof()
            return
        self.buffer += data
        self._pause_if_full()
        self.wake()

    def feed_eof(self) -> None:
        """Nothing more will come; what is in the buffer stays readable."""
        self.eof = True
        self.wake()

    def wake(self) -> None:
        """End ``more()`` now, with or without new bytes."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def discard(self, bound_bytes: int) -> None:
        """Throw away what is here and what comes; after ``bound_bytes`` more the input counts as ended."""
        self.buffer.clear()
        self._discard_left = bound_bytes
        self._resume()

    def take_line(self, limit: int) -> bytes | None:
        """Return the next line without its CRLF, or None while it has not arrived.

        ``limit`` counts the line with its CRLF. A longer one is thrown away as it arrives, so it costs no memory,
        and raises ``LineTooLong`` once its end is here.
        """
        buffer = self.buffer
        end = buffer.find(b"\n") + 1
        if end == 0:
            if len(buffer) > limit:
                self._overlong = True
                self._drop(len(buffer) - 1)  # the last byte may be the CR of its end
            return None
        line = bytes(memoryview(buffer)[:end])
        self._drop(end)
        if not line.endswith(b"\r\n"):
            self._overlong = False
            raise BareLineFeed
        if self._overlong or end > limit:
            self._overlong = False
            raise LineTooLong
        return line[:-2]

    def take_all(self) -> bytes:
        """Return all that is here."""
        data = bytes(self.buffer)
        self._drop(len(data))
        return data

    def give_back(self, data: bytes) -> None:
        """Put bytes back before what has arrived since."""
        self.buffer[:0] = data

    async def more(self) -> None:
        """Return when bytes have arrived, the input has ended, or ``wake`` was called."""
        if self.eof:
            return
        self._resume()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _drop(self, count: int) -> None:
        del self.buffer[:count]
        if self._paused and len(self.buffer) <= LOW:
            self._resume()

    def _pause_if_full(self) -> None:
        if len(self.buffer) > HIGH and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._transport.resume_reading()
            self._paused = False
