"""A session against a peer that says anything at all, in memory."""

import asyncio
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from peers.dial import PATIENT, envelope

from arkrelay.model.reply import Failure, Reply, Stage
from arkrelay.wire.channel import Channel
from arkrelay.wire.commands import Extensions
from arkrelay.wire.exchange import Transaction
from arkrelay.wire.session import Session

SAID = st.one_of(
    st.sampled_from(
        [
            b"250 ok\r\n",
            b"250 ok\r\n",
            b"354 go\r\n",
            b"354 go\r\n",
            b"550 5.1.1 no\r\n",
            b"451 later\r\n",
            b"421 bye\r\n",
            b"250-two\r\n250 lines\r\n",
            b"550-no\r\n250 yes\r\n",
            b"250 half",
            b"\xff\r\n",
        ]
    ),
    st.binary(max_size=20),
)


class Peerless(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


async def _talk(said: list[bytes], pipelining: bool, recipients: int) -> tuple[list[Transaction], list[int], bytes]:
    """Return how two transactions came out, whose dot was announced, and what was written."""
    channel, transport, dots = Channel(asyncio.get_running_loop()), Peerless(), list[int]()
    channel.connection_made(transport)
    session = Session(channel, "mx.test", ("192.0.2.1", 25), None, Extensions(pipelining=pipelining), PATIENT)
    to = [f"r{number}@x.test" for number in range(recipients)]
    futures = [session.send(envelope(*to), b"%d\r\n" % n, on_dot=lambda n=n: dots.append(n)) for n in (0, 1)]  # type: ignore[misc]  # a lambda with a default
    for part in said:
        channel.data_received(part)
        await asyncio.sleep(0)  # the woken caller and the content that waits for it
    channel.connection_lost(None)
    return [await future for future in futures], dots, transport.written


@settings(max_examples=400, deadline=None)
@given(st.lists(SAID, max_size=14), st.booleans(), st.integers(1, 3))
def test_whatever_is_said_each_recipient_gets_one_result(
    said: list[bytes], pipelining: bool, recipients: int
) -> None:
    transactions, dots, written = asyncio.run(_talk(said, pipelining, recipients))
    for number, transaction in enumerate(transactions):
        assert len(transaction.results) == recipients
        assert transaction.past_dot is (number in dots)
        assert (re.search(rb"(?m)^%d\r\n\.\r\n" % number, written) is not None) is transaction.past_dot
        for result in transaction.results:
            delivered = isinstance(result, Reply) and result.code < 300
            assert not delivered or (transaction.past_dot and result.stage is Stage.DOT)
            assert not (isinstance(result, Failure) and result.stage is Stage.DOT) or transaction.past_dot
            assert not transaction.untried or isinstance(result, Failure)


@given(st.integers(1, 3), st.booleans())
def test_a_peer_that_says_yes_gets_both(recipients: int, pipelining: bool) -> None:
    one = [*[b"250 ok\r\n"] * (1 + recipients), b"354 go\r\n", b"250 taken\r\n"]
    transactions, dots, _ = asyncio.run(_talk(one + one, pipelining, recipients))
    taken = Reply(250, None, "taken", Stage.DOT)
    assert [transaction.results for transaction in transactions] == [(taken,) * recipients] * 2
    assert dots == [0, 1]
