"""What all connections of all doors share."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arkrelay.base.metrics import Metrics
from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live, Snapshot
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.rates import RateLimits
from arkrelay.relay.submit import Submitter
from arkrelay.smtpd.limiter import Limiter
from arkrelay.wire.tls import ServerCertificate

if TYPE_CHECKING:
    from arkrelay.smtpd.connection import Connection  # which imports us


@dataclass(slots=True)
class Shared:
    """The parts of the daemon that a connection needs, and the counts that all connections are in."""

    live: Live
    submitter: Submitter
    inbound: Inbound
    certificate: ServerCertificate | None
    metrics: Metrics | None
    max_sessions: int
    rates: RateLimits = field(default_factory=RateLimits)  # those of the HTTP door, when a tenant has one for both
    limiter: Limiter = field(default_factory=Limiter)
    commits: Tasks = field(default_factory=Tasks)
    sessions: "set[Connection]" = field(default_factory=set)
    stopping: bool = False
    # EHLO replies of ``ehlo_of``, by service, encryption and whether AUTH is offered
    ehlo: dict[tuple[Any, ...], bytes] = field(default_factory=dict)
    ehlo_of: Snapshot | None = None
    _emptied: asyncio.Future[None] | None = None

    def leave(self, session: "Connection") -> None:
        """Take the connection out of the count."""
        self.sessions.discard(session)
        if not self.sessions and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    async def emptied(self) -> None:
        """Return when no connection is open."""
        while self.sessions:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied
