"""Transactions on an open connection: pipelined, two at a time, each recipient with its own result.

Where the peer offers PIPELINING, MAIL, every RCPT and DATA leave in one write, and the group of the next
transaction goes right behind the final dot of the one before it (RFC 2920 §3.1), so that a busy session needs one
round trip a message. Elsewhere each command waits for the reply to the one before.

An exchange walks through the steps below, and replies are matched to steps strictly in order. All that a peer does
ends as a ``Reply`` or ``Failure`` per recipient; after anything that is not SMTP the connection ends, because
nobody can know any more which reply belongs to what.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from arkrelay.model.attempt import TlsInfo
from arkrelay.model.delivery import Timeouts
from arkrelay.model.message import Envelope
from arkrelay.model.peertls import TlsPolicy
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.wire.channel import Channel
from arkrelay.wire.commands import Extensions, Prepared, prepare, render_group, unfit, unsafe
from arkrelay.wire.exchange import STAGE, WHERE, Exchange, Step, Transaction
from arkrelay.wire.replies import Heard, to_reply
from arkrelay.wire.transcript import Entry

log = structlog.get_logger()

BLOCK_S = 180.0  # for the peer to read some of the content (RFC 5321 §4.5.3.2.5)
QUIT_S = 5.0  # nobody's mail waits for the reply to QUIT
ONE_WRITE = 131072  # octets that are handed to the kernel at once
ONE_TURN = 1048576  # octets after which other connections get their turn


class Session:
    """A connection on which mail can be sent, from one event loop.

    ``open``: another transaction may be started on it, now or later. ``room``: how many now. ``idle_since`` is the
    loop's time when the last transaction ended, None while one is under way.
    """

    def __init__(
        self,
        channel: Channel,
        host: str,
        peer: tuple[str, int],
        tls: TlsInfo | None,
        extensions: Extensions,
        timeouts: Timeouts,
    ) -> None:
        self.host, self.tls, self.extensions = host, tls, extensions
        self.address, self.port = peer
        self.transactions = 0  # begun so far
        self.policy = TlsPolicy.NONE  # on whose word TLS was demanded, set by who demanded it
        self.source = channel.source
        self.site = ""  # whose connections it counts to; set by who connected, as is the next
        self.set_up: Sequence[Entry] = ()  # what was said before the first transaction
        self.opened = time.perf_counter()
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self.idle_since: float | None = self._loop.time()
        self._line: list[Exchange] = []  # at most two; the first is the one that replies belong to
        self._unanswered = 0  # commands written whose reply has not come
        self._reset = False  # the peer may still be inside a transaction: RSET first (RFC 5321 §4.1.4)
        self._offset: int | None = None  # how much of a big content is written; None: none is under way
        self._quitting = False
        self._wait_s = {
            Step.DATA: timeouts.data_s,
            Step.CONTENT: BLOCK_S,
            Step.DOT: timeouts.final_dot_s,
        }
        self._command_s = timeouts.command_s
        self._answers: dict[Step, Callable[[Exchange, Heard], None]] = {
            Step.RSET: self._answer_rset,
            Step.MAIL: self._answer_mail,
            Step.RCPT: self._answer_rcpt,
            Step.DATA: self._answer_data,
            Step.DOT: self._answer_dot,
            Step.LONE_DOT: self._answer_lone_dot,
        }
        channel.owner = self

    @property
    def open(self) -> bool:
        """Whether another transaction may be started."""
        limit = self.extensions.mail_max
        return self._channel.ended is None and not self._quitting and (limit is None or self.transactions < limit)

    @property
    def room(self) -> int:
        """How many transactions ``send`` takes at this moment."""
        return 2 - len(self._line) if self.open else 0

    def send(
        self, envelope: Envelope, content: bytes | Prepared, *, on_dot: Callable[[], None] | None = None
    ) -> asyncio.Future[Transaction]:
        """Start a transaction; the future gets its outcome and never an exception.

        ``on_dot`` is called just before the final dot is written; when it raises, the dot is not. Cancelling the
        future ends the connection. A third transaction at once and 8-bit content for a peer without 8BITMIME are
        bugs of ours: ``ValueError``.
        """
        if envelope.eight_bit and not self.extensions.eight_bit_mime:
            raise ValueError("8-bit content for a peer without 8BITMIME: it must be re-encoded first")
        if len(self._line) > 1:
            raise ValueError("two transactions are under way already")
        future: asyncio.Future[Transaction] = self._loop.create_future()
        exchange = Exchange(envelope, on_dot, future)
        if not self.open:
            exchange.fill(Failure(FailureKind.CLOSED, Stage.MAIL, "the connection was closed before"))
            exchange.resolve(untried=True)
            return future
        self._check(exchange, content)
        if not exchange.sent:
            exchange.resolve()
            return future
        future.add_done_callback(self._cancelled)
        self.transactions += 1
        self.idle_since = None
        self._line.append(exchange)
        self._pump()
        if self._line and self._line[0] is exchange:
            self._arm()
        return future

    def _check(self, exchange: Exchange, content: bytes | Prepared) -> None:
        """Find out who can be sent to; the others get the failure that says why not."""
        envelope = exchange.envelope
        exchange.content = prepare(content) if isinstance(content, bytes) else content
        if (problem := unfit(envelope, exchange.content, self.extensions)) is not None:
            exchange.fill(problem)
            return
        for index, address in enumerate(envelope.recipients):
            exchange.results[index] = problem = unsafe(address, utf8=envelope.smtputf8)
            if problem is None:
                exchange.sent.append(index)

    async def quit(self) -> None:
        """Say QUIT and close, within ``QUIT_S``; transactions under way are cut off."""
        if self._line or self._channel.ended is not None:
            self.abort()
        else:
            self._quitting = True
            self._channel.write(b"QUIT\r\n")
            self._channel.arm(QUIT_S)
        await asyncio.wait([self._channel.closed], timeout=2 * QUIT_S)

    def abort(self) -> None:
        """Close at once; transactions under way get a ``Failure``."""
        self._channel.end(FailureKind.STOPPED, "we closed the connection")

    # what the channel calls

    def heard(self, replies: list[Heard]) -> None:
        """Give each reply to the step that waits for it, then write what that allows.

        Only as many replies count as commands were on the way when they came: one more is an answer to something
        that was not asked yet, and must not be taken for the answer to what we say next.
        """
        if self._quitting:
            transport = self._channel.transport
            if (replies or self._channel.parser.broken) and transport is not None and not transport.is_closing():
                transport.close()  # never twice: a TLS transport of Python 3.11.2 could not be aborted any more
            return
        asked, under_way = self._unanswered, len(self._line)
        for reply in replies[:asked]:
            self._unanswered -= 1
            self._answer(self._line[0], reply)
            if self._channel.ended is not None:
                return
        if len(replies) > asked:
            self._unasked(replies[asked])
        elif self._channel.parser.broken is not None:
            self._channel.end(FailureKind.PROTOCOL, self._channel.parser.broken)
        elif self._channel.parser.pending and len(replies) == asked:
            self._channel.end(FailureKind.PROTOCOL, "the peer spoke before it was asked")
        elif replies and 0 < len(self._line) < under_way:
            # A caller has just been woken, and what it sends now can share a write with the content that is due.
            self._loop.call_soon(self._go_on)
        elif replies:
            self._go_on()

    def lost(self, kind: FailureKind, detail: str) -> None:
        """Give all that is under way its failure; the second exchange only lost its connection."""
        line, self._line = self._line, []
        self.idle_since = self._offset = None
        for exchange in line:
            where = detail if kind is FailureKind.PROTOCOL else f"{detail} before {WHERE[exchange.step]}"
            exchange.fill(Failure(kind, STAGE[exchange.step], where))
            exchange.resolve(untried=not exchange.answered)
            kind = kind if kind is FailureKind.STOPPED else FailureKind.CLOSED

    def writable(self) -> None:
        """Go on with a big content."""
        if self._offset is not None:
            self._upload()

    # replies

    def _answer(self, exchange: Exchange, heard: Heard) -> None:
        exchange.answered = True
        exchange.said.append((time.perf_counter(), heard))
        if heard.code == 421:  # RFC 5321 §3.8: it closes, whatever was asked
            self._goodbye(exchange, heard)
        elif 300 <= heard.code < 400 and heard.code != 354:
            self._nonsense(exchange, heard)
        else:
            self._answers[exchange.step](exchange, heard)

    def _answer_rset(self, exchange: Exchange, heard: Heard) -> None:
        if heard.code < 300:
            exchange.step = Step.MAIL
        else:  # we are not where we think we are
            self._goodbye(exchange, heard)

    def _answer_mail(self, exchange: Exchange, heard: Heard) -> None:
        if heard.code == 354:
            self._nonsense(exchange, heard)
            return
        exchange.step = Step.RCPT
        if heard.code >= 400:
            exchange.fill(to_reply(heard, Stage.MAIL))
            if exchange.commands:  # without PIPELINING nothing more was said
                self._finish(exchange, reset=True)

    def _answer_rcpt(self, exchange: Exchange, heard: Heard) -> None:
        if heard.code == 354:
            self._nonsense(exchange, heard)
            return
        index = exchange.sent[exchange.next_rcpt]
        exchange.next_rcpt += 1
        if exchange.results[index] is None:  # else MAIL was refused, and this only repeats it
            if heard.code < 300:
                exchange.accepted.append(index)
            else:
                exchange.results[index] = to_reply(heard, Stage.RCPT)
        if exchange.next_rcpt == len(exchange.sent):
            exchange.step = Step.DATA
            if exchange.commands and not exchange.accepted:
                self._finish(exchange, reset=True)

    def _answer_data(self, exchange: Exchange, heard: Heard) -> None:
        if heard.code == 354:
            exchange.step = Step.CONTENT
        elif heard.code >= 400:
            exchange.fill(to_reply(heard, Stage.DATA))
            self._finish(exchange, reset=True)
        else:  # also any 2xx: nobody knows what such a peer would do with the content
            self._nonsense(exchange, heard)

    def _answer_dot(self, exchange: Exchange, heard: Heard) -> None:
        if heard.code == 354:
            self._nonsense(exchange, heard)
        else:  # RFC 5321 §4.2.1: the first digit decides, so any 2xx means that it was taken
            exchange.fill(to_reply(heard, Stage.DOT))
            self._finish(exchange)

    def _answer_lone_dot(self, exchange: Exchange, _heard: Heard) -> None:
        self._finish(exchange)

    def _finish(self, exchange: Exchange, *, reset: bool = False) -> None:
        """Take ``exchange`` off the line; it is the first. After a dot the peer is outside any transaction."""
        self._line.pop(0)
        self._reset = reset
        exchange.resolve()

    def _goodbye(self, exchange: Exchange, heard: Heard) -> None:
        """Give the reply to those who have none yet, and close."""
        exchange.fill(to_reply(heard, STAGE[exchange.step]))
        self._finish(exchange)
        self._channel.end(FailureKind.CLOSED, f"the peer closed ({heard.code})")

    def _nonsense(self, exchange: Exchange, heard: Heard) -> None:
        self._channel.end(FailureKind.PROTOCOL, f"{heard.code} is not {WHERE[exchange.step]}")

    def _unasked(self, heard: Heard) -> None:
        """End the session over a reply to nothing; one that refuses the content while it is sent is meant so."""
        if self._offset is not None and heard.code >= 400:
            exchange = self._line[0]
            exchange.answered = True
            exchange.said.append((time.perf_counter(), heard))
            self._goodbye(exchange, heard)
        elif not self._line or heard.code == 421:
            self._channel.end(FailureKind.CLOSED, f"the peer closed ({heard.code})")
        else:
            self._channel.end(FailureKind.PROTOCOL, f"a reply to nothing ({heard.code})")

    # what we say

    def _go_on(self) -> None:
        if self._channel.ended is None:
            self._pump()
            self._arm()

    def _pump(self) -> None:
        """Write all that may be written now, in one piece where it is small."""
        out: list[bytes] = []
        for exchange in self._line:
            if not exchange.written:
                out += self._begin(exchange)
            elif exchange.step is Step.CONTENT and self._offset is None:
                if not self._content(exchange, out):
                    return
            elif exchange.commands and not self._unanswered:
                out.append(exchange.commands.pop(0))
                exchange.said.append((time.perf_counter(), out[-1:]))
                self._unanswered += 1
            if exchange.step < Step.DOT or not self.extensions.pipelining:
                break  # what is behind must wait for the dot
        if out:
            self._channel.write(out[0] if len(out) == 1 else b"".join(out))

    def _begin(self, exchange: Exchange) -> list[bytes]:
        """Return the first command, or with PIPELINING the whole group."""
        exchange.written = True
        exchange.started_at, exchange.started = time.time(), time.perf_counter()
        group = render_group(exchange.envelope, exchange.sent, exchange.content, self.extensions)
        if self._reset:
            self._reset = False
            exchange.step = Step.RSET
            group.insert(0, b"RSET\r\n")
        if not self.extensions.pipelining:
            exchange.commands = group[1:]
            del group[1:]
        self._unanswered += len(group)
        exchange.said.append((exchange.started, group))
        return group

    def _content(self, exchange: Exchange, out: list[bytes]) -> bool:
        """Put the content into ``out``, or begin to write it by parts; False when this turn is over."""
        if not exchange.accepted:  # RFC 2920 §3.1: 354 with nobody to deliver to: end it with a lone dot
            exchange.step = Step.LONE_DOT
            exchange.said.append((time.perf_counter(), [b".\r\n"]))
            exchange.resolve()
            out.append(b".\r\n")
        elif len(exchange.content.wire) > ONE_WRITE:
            self._offset = 0
            exchange.said.append((time.perf_counter(), "the content begins"))
            self._upload()
            return False
        elif not self._dot(exchange):
            return False
        else:
            out.append(exchange.content.wire)
        self._unanswered += 1
        return True

    def _upload(self) -> None:
        """Write parts of a big content until the peer does not keep up or others should have a turn."""
        exchange, channel = self._line[0], self._channel
        wire = memoryview(exchange.content.wire)
        end = min(len(wire), (self._offset or 0) + ONE_TURN)
        while self._offset is not None and self._offset < end and not channel.paused and channel.ended is None:
            part = wire[self._offset : self._offset + ONE_WRITE]
            self._offset += len(part)
            if self._offset == len(wire):
                if not self._dot(exchange):
                    return
                self._offset = None
                self._unanswered += 1
            channel.write(part)
        if channel.ended is not None:
            return
        self._arm()
        if self._offset is None:
            self._pump()  # the next group goes behind the dot
        elif not channel.paused:
            self._loop.call_soon(self.writable)

    def _dot(self, exchange: Exchange) -> bool:
        """Call the journal: from here on nobody can know, until the peer has answered."""
        try:
            if exchange.on_dot is not None:
                exchange.on_dot()
        except Exception:  # a bug of ours, or no room for the journal: the peer gets no dot
            log.exception("journal_failed", host=self.host)
            exchange.fill(Failure(FailureKind.INTERNAL, Stage.DATA, "the attempt could not be written down"))
            self._channel.end(FailureKind.INTERNAL, "the attempt could not be written down")
            return False
        exchange.past_dot = True
        exchange.said.append((time.perf_counter(), exchange.content.size_bytes))
        exchange.step = Step.DOT
        return True

    def _arm(self) -> None:
        """Set the deadline of the step that the first exchange waits for."""
        if self._line:
            first = self._line[0]
            big = first.step >= Step.CONTENT and len(first.content.wire) > ONE_WRITE
            self._channel.arm(self._wait_s.get(first.step, self._command_s), while_reading=big)
        else:
            self._channel.disarm()
            if self._channel.ended is None:
                self.idle_since = self._loop.time()

    def _cancelled(self, future: asyncio.Future[Transaction]) -> None:
        if future.cancelled():
            self.abort()
