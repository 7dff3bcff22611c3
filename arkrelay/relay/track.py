"""Opens and clicks: what came in at a track host becomes events of a recipient (Ark contract §12).

A link is looked up and followed at once; that it was followed is written with the next group, within 50 ms. What
waits is bounded and lives in memory: a crash loses a moment of clicks, and a flood of them is cut before it costs
mail a place in the writer's line. One client's repeats of one message count up to 30 a minute, opens and clicks
apart; a client is an address, or the /64 that it is in.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.mail.tracking import TOKEN_CHARS, LinkTokens
from arkrelay.model.errors import StoreError
from arkrelay.model.event import EventKind
from arkrelay.model.tenant import Tenant
from arkrelay.policy.engage import UNCOUNTED, Client, Visitor
from arkrelay.policy.limits import SlidingWindow
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.engagement import Seen, load_links, record

log = structlog.get_logger()

GATHER_S = 0.05
GROUP = 500  # written in one job: the writer is held for some 20 ms
MAX_WAITING = 10_000
REPEATS = 30  # of one client at one message within
REPEATS_S = 60.0
AGENT_CHARS = 300  # of a User-Agent that are kept
_PUBLIC_ID = re.compile(r"[0-9A-Za-z]{16}")
CACHED_MESSAGES, CACHED_CHARS = 128, 8_000_000  # whose links stay in memory: a reader follows several


class Tracker:
    """Knows what a host, a pixel and a link stand for, and remembers who came by."""

    def __init__(self, store: Store, live: Live, tokens: LinkTokens, metrics: Metrics) -> None:
        self._store = store
        self._live = live
        self._tokens = tokens
        self._metrics = metrics
        self._waiting: list[Seen] = []
        self._writing = 0
        self._scheduled = False
        self._repeats = SlidingWindow(REPEATS, REPEATS_S, 20_000)
        self._links: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._chars = 0

    def tenant_of(self, host: str) -> Tenant | None:
        """Return whose track domain this host name is, verified or not: links in old mail should go on working.

        A host serves its own tenant and no other, so nobody's links can borrow somebody else's good name.
        """
        owner = self._live.snapshot.owner_of(host.partition(".")[2])
        if owner is None:
            return None
        return owner[0] if any(track.full_name == host for track in owner[0].track_domains) else None

    def is_token(self, token: str) -> bool:
        """Return whether this stands for any tenant in URLs."""
        return any(token == self._tokens.tenant(tenant_id) for tenant_id in self._live.snapshot.tenants)

    def is_token_of(self, tenant: Tenant, token: str) -> bool:
        """Return whether this is what stands for the tenant in URLs."""
        return token == self._tokens.tenant(tenant.id)

    def opened(self, tenant: Tenant, token: str, visitor: Visitor, client: Client, agent: str) -> None:
        """The pixel of the message with this public id was fetched; whether there is one shows when it is written."""
        if _PUBLIC_ID.fullmatch(token):
            self._note(EventKind.LOADED, tenant, token, visitor, client, agent, {})

    async def follow(self, tenant: Tenant, token: str, visitor: Visitor, client: Client, agent: str) -> str | None:
        """Return where a link leads, and remember that it was followed; None for what is no link of this tenant.

        Raises ``StoreError`` when that cannot be read.
        """
        parsed = self._tokens.parse(tenant.id, token)
        if parsed is None:
            return None
        recipient_id, place = parsed
        urls = await self._urls(recipient_id)
        if place >= len(urls):
            return None
        data = {"url": urls[place], "token": token[:TOKEN_CHARS]}
        self._note(EventKind.CLICKED, tenant, recipient_id, visitor, client, agent, data)
        return urls[place]

    async def _urls(self, recipient_id: int) -> tuple[str, ...]:
        found = self._links.get(recipient_id)
        if found is not None:
            self._links.move_to_end(recipient_id)
            return found
        found = await self._store.read(lambda db: load_links(db, recipient_id))
        if found and recipient_id not in self._links:
            self._links[recipient_id] = found
            self._chars += sum(map(len, found))
            while len(self._links) > CACHED_MESSAGES or (self._chars > CACHED_CHARS and len(self._links) > 1):
                _, old = self._links.popitem(last=False)
                self._chars -= sum(map(len, old))
        return found

    def _note(
        self,
        kind: EventKind,
        tenant: Tenant,
        recipient: int | str,
        visitor: Visitor,
        client: Client,
        agent: str,
        data: dict[str, str],
    ) -> None:
        self._metrics.tracked.labels("open" if kind is EventKind.LOADED else "click", visitor).inc()
        if visitor in UNCOUNTED:
            return
        if not self._repeats.hit((client.network, recipient), time.monotonic()):
            return
        if len(self._waiting) + self._writing >= MAX_WAITING:
            self._metrics.tracked.labels("lost", visitor).inc()
            return
        shown = "".join(char for char in agent[:AGENT_CHARS] if char.isprintable())
        whose = {"ip_address": client.address, "user_agent": shown, "visitor": str(visitor)}
        self._waiting.append(Seen(kind, time.time(), tenant.id, recipient, data | whose))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def flush(self) -> None:
        """Hand what waits to the writer."""
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), GROUP):
            self._write(waiting[start : start + GROUP])

    def _write(self, some: Sequence[Seen]) -> None:
        self._writing += len(some)

        def job(db: Connection) -> None:
            record(db, some)

        def done(error: Exception | None) -> None:
            self._writing -= len(some)
            if isinstance(error, StoreError):  # the disk is full or the database locked: mail matters more
                log.warning("activity_not_written", events=len(some), error=str(error))
            elif error is not None:
                log.error("activity_not_written", events=len(some), exc_info=error)

        self._store.write_later(job, done, essential=False)
