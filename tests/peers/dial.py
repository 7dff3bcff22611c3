"""Our client against ``Mx``: short timeouts, and nothing left open."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from peers.mx import Mx

from arkrelay.model.delivery import Timeouts
from arkrelay.model.message import Envelope
from arkrelay.model.reply import Failure, Reply
from arkrelay.wire.smtp import Session, Target, connect

QUICK = Timeouts(connect_s=0.3, greeting_s=0.3, command_s=0.3, data_s=0.3, final_dot_s=0.3)
PATIENT = Timeouts(connect_s=5, greeting_s=5, command_s=5, data_s=5, final_dot_s=5)


def target(port: int, **changes: Any) -> Target:
    """Return ``mx.test`` on loopback."""
    values: dict[str, Any] = {"host": "mx.test", "address": "127.0.0.1", "port": port, "helo": "us.test"}
    return Target(**values | changes)


def envelope(*recipients: str, **changes: Any) -> Envelope:
    """Return an envelope from a return path of ours."""
    values: dict[str, Any] = {"return_path": "b-1@ret.test", "recipients": recipients or ("someone@x.test",)}
    return Envelope(**values | changes)


async def dial(mx: Mx, timeouts: Timeouts = QUICK, **changes: Any) -> Session | Reply | Failure:
    """Connect to ``mx``."""
    return await connect(target(mx.port, **changes), timeouts)


@contextlib.asynccontextmanager
async def session(mx: Mx, timeouts: Timeouts = QUICK, **changes: Any) -> AsyncIterator[Session]:
    """Give an open session; the client must have behaved by the time that it ends."""
    opened = await dial(mx, timeouts, **changes)
    assert isinstance(opened, Session), opened
    try:
        yield opened
    finally:
        opened.abort()
        await opened.quit()
    assert mx.violations == []
