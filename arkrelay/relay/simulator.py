"""Recipients that are played, for who wants to see every way that mail can take (``policy.simulate`` has the parts).

Mail to the simulator's domain runs through everything but a connection: it is admitted, rewritten, signed and queued,
its outcome settled by the verb that settles a peer's answer, and what its reader does goes by the verbs that real
readers reach. So events, webhooks, suppressions and retries come as they would in life.

Reports (bounces, complaints) are written as a stranger's server writes them, and come in as mail to the return path
that the message had.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.mail.simulated import render_bounce, render_complaint
from arkrelay.mail.tracking import LinkTokens
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.address import Address
from arkrelay.model.attempt import Attempt
from arkrelay.model.errors import ArkrelayError
from arkrelay.model.message import HoldReason, Recipient
from arkrelay.policy import outcomes
from arkrelay.policy.describe import suppressed
from arkrelay.policy.engage import Client, Visitor
from arkrelay.policy.simulate import AFTER_S, Afterwards, part_of
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.settle import Settler
from arkrelay.relay.track import Tracker
from arkrelay.relay.unsubscribe import BY_CLICK, Unsubscriber

log = structlog.get_logger()

HOST = "simulator"
CLIENT = Client("192.0.2.1", "192.0.2.1")  # RFC 5737: an address that nobody has
AGENT = "Mozilla/5.0 (simulated)"


class Simulator:
    """Plays the recipients; one per daemon."""

    def __init__(
        self,
        live: Live,
        settler: Settler,
        tracker: Tracker,
        unsubscriber: Unsubscriber,
        links: LinkTokens,
        return_paths: ReturnPaths,
        inbound: Inbound,
    ) -> None:
        self._live = live
        self._settler = settler
        self._tracker = tracker
        self._unsubscriber = unsubscriber
        self._links = links
        self._return_paths = return_paths
        self._inbound = inbound
        self._tasks = Tasks()

    def play(self, recipient: Recipient, done: Callable[[], None]) -> None:
        """Let the recipient answer; ``done`` is called when its outcome is known."""
        part = part_of(recipient.address)
        if part.wait_s:
            self._tasks.spawn("slow recipient", self._answer_late(recipient, part.wait_s, done))
        else:
            self._answer(recipient, 0.0, done)

    async def stop(self) -> None:
        """Forget what was still to come."""
        await self._tasks.cancel()

    async def _answer_late(self, recipient: Recipient, wait_s: float, done: Callable[[], None]) -> None:
        try:
            await asyncio.sleep(wait_s)
            self._answer(recipient, wait_s, lambda: None)
        finally:
            done()

    def _answer(self, recipient: Recipient, took_s: float, done: Callable[[], None]) -> None:
        part, now = part_of(recipient.address), time.time()
        if part.suppressed and recipient.hold_reason is not HoldReason.SUPPRESSED:  # else a person passed over that
            reason = suppressed(recipient.address, "simulated")
            self._settler.settle(outcomes.hold(recipient, HoldReason.SUPPRESSED, reason, now))
        else:
            attempt = Attempt(recipient.id, now - took_s, took_s, part.reply, host=HOST)
            follow = part.afterwards

            def settled() -> None:
                if follow is not None:
                    self._tasks.spawn("simulated reader", self._afterwards(recipient, follow))

            self._settler.attempted(recipient, attempt, settled)
        done()

    async def _afterwards(self, recipient: Recipient, kind: Afterwards) -> None:
        await asyncio.sleep(AFTER_S)
        try:
            if not await self._act(recipient, kind):
                log.info("simulated_nothing", id=recipient.token, kind=kind, reason="the message does not offer it")
        except ArkrelayError as error:
            log.warning("simulated_nothing", id=recipient.token, kind=kind, reason=str(error))

    async def _act(self, recipient: Recipient, kind: Afterwards) -> bool:
        """Do what the reader does; return whether the message let it."""
        message = recipient.message
        tenant = self._live.snapshot.tenants.get(message.tenant_id)
        if tenant is None:
            return False
        match kind:
            case Afterwards.OPEN:
                self._tracker.opened(tenant, recipient.token, Visitor.PERSON, CLIENT, AGENT)
                return True
            case Afterwards.CLICK:
                link = self._links.link(tenant.id, recipient.id, 0)
                return await self._tracker.follow(tenant, link, Visitor.PERSON, CLIENT, AGENT) is not None
            case Afterwards.UNSUBSCRIBE:
                found = await self._unsubscriber.offered(recipient)
                return found is not None and await self._unsubscriber.end(found, BY_CLICK)
            case Afterwards.BOUNCE | Afterwards.COMPLAINT:
                render = render_bounce if kind is Afterwards.BOUNCE else render_complaint
                mark = self._return_paths.local_part(recipient.id, time.time())
                host = self._live.snapshot.settings.return_path_host
                report = render(f"{mark}@{host}", recipient.address, message.message_id, time.time())
                mailbox = self._inbound.mailboxes.find(Address(mark, host), time.time())
                return mailbox is not None and await self._inbound.take([mailbox], report)
