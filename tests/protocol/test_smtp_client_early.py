"""A greeting that comes before the client listens is heard: an event loop may deliver it that early."""

import asyncio

import pytest
from peers.mx import Mx

from arkrelay.model.delivery import Timeouts
from arkrelay.wire import smtp
from arkrelay.wire.channel import Channel
from arkrelay.wire.smtp import Session, Target, connect

SHORT = Timeouts(connect_s=5, greeting_s=5, command_s=5, data_s=5, final_dot_s=5)


async def test_a_greeting_before_anybody_listens_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Mx() as mx:
        target = Target(host="mx.test", address="127.0.0.1", port=mx.port, helo="relay.test")
        opened = smtp._open

        async def slow_open(
            loop: asyncio.AbstractEventLoop, channel: Channel, target: Target, timeout_s: float
        ) -> object:
            failure = await opened(loop, channel, target, timeout_s)
            async with asyncio.timeout(5):
                while not channel._early:
                    await asyncio.sleep(0.001)
            return failure

        monkeypatch.setattr(smtp, "_open", slow_open)
        session = await connect(target, SHORT)
        assert isinstance(session, Session), session
        await session.quit()
