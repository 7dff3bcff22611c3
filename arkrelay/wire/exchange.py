"""One MAIL…DATA under way: whom it is for, which reply it waits for, and what each recipient got."""

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import IntEnum

from arkrelay.model.message import Envelope
from arkrelay.model.record import record
from arkrelay.model.reply import Failure, Reply, Stage
from arkrelay.wire.commands import Prepared
from arkrelay.wire.transcript import Entry


@record(frozen=True, slots=True)
class Transaction:
    """How one MAIL…DATA came out.

    ``results`` stands beside ``envelope.recipients``. ``past_dot``: the final dot was written, so that a
    ``Failure`` at ``Stage.DOT`` leaves open whether the peer took the message (RFC 1047). ``untried``: the
    connection ended before the peer answered anything of this transaction; a kept connection may simply have been
    too old, and the message can go to another one at once. ``said`` is the conversation.
    """

    results: tuple[Reply | Failure, ...]
    past_dot: bool
    started_at: float  # Unix seconds
    duration_s: float
    untried: bool = False
    said: Sequence[Entry] = ()


NOTHING = Prepared(b".\r\n", 0)


class Step(IntEnum):
    """Which reply an exchange waits for; CONTENT waits for none, it is our turn."""

    RSET = 0
    MAIL = 1
    RCPT = 2
    DATA = 3
    CONTENT = 4
    DOT = 5
    LONE_DOT = 6


STAGE = {
    Step.RSET: Stage.MAIL,
    Step.MAIL: Stage.MAIL,
    Step.RCPT: Stage.RCPT,
    Step.DATA: Stage.DATA,
    Step.CONTENT: Stage.DATA,
    Step.DOT: Stage.DOT,
    Step.LONE_DOT: Stage.DATA,
}
WHERE = {
    Step.RSET: "the reply to RSET",
    Step.MAIL: "the reply to MAIL",
    Step.RCPT: "the reply to RCPT",
    Step.DATA: "the reply to DATA",
    Step.CONTENT: "the end of the content",
    Step.DOT: "the reply to the final dot",
    Step.LONE_DOT: "the reply to an empty message",
}


class Exchange:
    """One transaction under way."""

    __slots__ = (
        "accepted",
        "answered",
        "commands",
        "content",
        "envelope",
        "future",
        "next_rcpt",
        "on_dot",
        "past_dot",
        "results",
        "said",
        "sent",
        "started",
        "started_at",
        "step",
        "written",
    )

    def __init__(
        self,
        envelope: Envelope,
        on_dot: Callable[[], None] | None,
        future: asyncio.Future[Transaction],
    ) -> None:
        self.envelope, self.on_dot, self.future = envelope, on_dot, future
        self.content = NOTHING
        self.results: list[Reply | Failure | None] = [None] * len(envelope.recipients)
        self.sent: list[int] = []  # recipients that have a RCPT
        self.accepted: list[int] = []  # those the peer said yes to
        self.next_rcpt = 0  # which of ``sent`` is answered next
        self.commands: list[bytes] = []  # still to be written, one by one, without PIPELINING
        self.step = Step.MAIL
        self.written = False  # its first command is on the way
        self.answered = False  # the peer has answered some of it
        self.past_dot = False
        self.said: list[Entry] = []
        self.started_at, self.started = time.time(), time.perf_counter()

    def fill(self, result: Reply | Failure) -> None:
        """Give ``result`` to all recipients that have none."""
        self.results = [result if one is None else one for one in self.results]

    def resolve(self, *, untried: bool = False) -> None:
        """Tell the caller, unless it went away."""
        if not self.future.done():
            results = tuple(one for one in self.results if one is not None)
            duration_s = time.perf_counter() - self.started
            self.future.set_result(
                Transaction(results, self.past_dot, self.started_at, duration_s, untried, self.said)
            )
