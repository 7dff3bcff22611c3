"""One destination at a time: plan, connect, send; what the peer does is reported, never decided, here.

``Courier.connect`` walks the hosts of a destination in the order of ``policy.route`` until one takes the
conversation; only when all have failed is that one failed attempt (RFC 5321 §5.1). ``Courier.send`` starts one
transaction for one recipient, with its own return path, and journals the phases: ``talking`` when it starts,
``dot`` just before the final dot is written, ``taken`` when the peer has answered 2xx.

Broken opportunistic TLS is remembered per host for three days, during which that host gets clear text. Where a
policy demands TLS (``relay.peertls``, a route) mail is deferred instead, and nothing is remembered of the host.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeGuard

import structlog

from arkrelay.config.live import Live
from arkrelay.mail.sevenbit import to_seven_bit
from arkrelay.mail.strip import strip_signatures
from arkrelay.mail.verp import ReturnPaths, stamp_at
from arkrelay.model.attempt import Attempt
from arkrelay.model.delivery import Route, Source
from arkrelay.model.message import Envelope, Message, Recipient
from arkrelay.model.peertls import TlsPolicy, TlsResult
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.policy import route as routing
from arkrelay.policy.peertls import explain
from arkrelay.policy.providers import Providers
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.peertls import PeerTls
from arkrelay.relay.plan import Candidate, Plan, Planner
from arkrelay.relay.sign import Signing
from arkrelay.relay.sources import Sources, family_of
from arkrelay.relay.transcripts import of_transaction, render
from arkrelay.store.journal import Journal
from arkrelay.wire.dns import Resolver
from arkrelay.wire.smtp import Session, Target, Transaction, connect
from arkrelay.wire.transcript import Entry

log = structlog.get_logger()

SUBMISSIONS = 465  # implicit TLS (RFC 8314 §3.3)
CLEAR_TEXT_S = 3 * 86400.0  # how long a host with broken TLS gets clear text


@dataclass(frozen=True, slots=True)
class NotConnected:
    """No host took the conversation: what the last one did."""

    result: Reply | Failure
    candidate: Candidate | None
    seconds: float
    transcript: str = ""  # of the walk over the hosts

    @property
    def policy(self) -> TlsPolicy | None:
        """On whose word TLS was demanded."""
        if self.candidate is not None:
            return self.candidate.demand.policy
        return self.result.policy if isinstance(self.result, Failure) else None


class Courier:
    """Everything that speaks to peers; holds no mail."""

    def __init__(
        self,
        live: Live,
        resolver: Resolver,
        signing: Signing,
        journal: Journal,
        return_paths: ReturnPaths,
        domains: DomainChecker,
        peer_tls: PeerTls,
        own_addresses: frozenset[str],
        sources: Sources,
    ) -> None:
        self._live = live
        self._sources = sources
        self._planner = Planner(live, resolver, peer_tls, own_addresses, sources)
        self._signing = signing
        self._journal = journal
        self._return_paths = return_paths
        self._domains = domains
        self._peer_tls = peer_tls
        self._own_addresses = own_addresses
        self.clear_text_until: dict[str, float] = {}  # by MX host, loaded from the store at start
        self.on_tls_broken: Callable[[str, float], None] = lambda _host, _until: None

    @property
    def providers(self) -> Providers:
        """The providers as the configuration in force has them."""
        return self._planner.providers

    async def plan(self, destination: str) -> Plan | Failure:
        """Return the hosts and addresses to try for ``destination``, or why there are none."""
        return await self._planner.plan(destination)

    async def plan_route(self, route: Route, *, requiretls: bool) -> Plan | Failure:
        """Return the addresses of a smarthost, or why there are none."""
        return await self._planner.plan_route(route, requiretls=requiretls)

    async def connect(self, plan: Plan, source: Source | None = None) -> Session | NotConnected:
        """Return a session with the first host that takes one, past EHLO, STARTTLS and AUTH.

        ``source`` is the address of ours to connect from, of the candidates' family; None: the system chooses, and
        towards a smarthost any of ours may serve.
        """
        started = time.monotonic()
        result: Reply | Failure = Failure(FailureKind.NO_ADDRESS, Stage.CONNECT, "no address to connect to")
        last: Candidate | None = None
        said: list[Entry] = []
        for candidate in plan.candidates:
            session = await self._try(candidate, plan, source, said)
            if isinstance(session, Session):
                session.policy, session.site, session.set_up = candidate.demand.policy, plan.site, said
                return session
            log.info("host_failed", host=candidate.host, address=candidate.address, reply=str(session))
            if last is None or not _lacks_requiretls(session):  # an earlier host may do later what this never will
                result, last = session, candidate
        kept = said if self._keeps(failed=True) else []
        return NotConnected(result, last, time.monotonic() - started, render(kept))

    def send(
        self, session: Session, recipient: Recipient, content: bytes, done: Callable[[Attempt, int, bool], None]
    ) -> asyncio.Future[Transaction]:
        """Start the transaction; at its end ``done`` gets the attempt, its journal slot and whether it was untried.

        ``content`` must be what this session can carry: see ``fit``. The slot stays in use until the outcome
        is on disk, and is ended by the caller then.
        """
        envelope = self.envelope(recipient, len(content))
        if not session.extensions.eight_bit_mime:
            envelope = replace(envelope, eight_bit=False)  # by ``fit``
        journal, earlier, set_up = self._journal, session.transactions, session.set_up
        session.set_up = ()  # it belongs to the first message
        slot = journal.begin(recipient.id)
        try:
            future = session.send(envelope, content, on_dot=lambda: journal.dot(slot))
        except ValueError:  # a bug of ours, which the caller defers; nothing was sent
            journal.end(slot)
            raise

        def ended(future: asyncio.Future[Transaction]) -> None:
            transaction = future.result()
            result = transaction.results[0]
            taken = isinstance(result, Reply) and 200 <= result.code < 300
            if taken:
                journal.taken(slot)
            transcript = ""
            if self._keeps(failed=not taken):
                transcript = of_transaction(session, set_up, earlier, transaction)
            attempt = Attempt(
                recipient.id,
                transaction.started_at,
                transaction.duration_s,
                result,
                transaction.past_dot,
                session.host,
                session.address,
                session.port,
                session.tls,
                session.policy,
                dsn=session.extensions.dsn,
                source=session.source,
                site=session.site,
                transcript=transcript,
            )
            done(attempt, slot, transaction.untried)

        future.add_done_callback(ended)
        return future

    def envelope(self, recipient: Recipient, size_bytes: int) -> Envelope:
        """Return the envelope of one recipient, with a return path that leads back to exactly it."""
        message = recipient.message
        return Envelope(
            self._return_path(recipient),
            (recipient.address,),
            smtputf8=message.smtputf8 or not recipient.address.isascii(),
            eight_bit=message.eight_bit,
            requiretls=requires_tls(recipient.destination),
            size_bytes=size_bytes,
            ret=message.ret,
            envid=message.envid,
            notify=(recipient.notify,),
            orcpt=(recipient.orcpt,),
            by=_by(message, time.time()),
        )

    async def fit(self, recipient: Recipient, content: bytes, session: Session) -> bytes:
        """Return ``content`` as this session can carry it.

        A peer without 8BITMIME gets a 7-bit re-encoding (RFC 6152 §3), signed anew: the old signature of ours
        covers bytes that no longer exist.
        """
        if not recipient.message.eight_bit or session.extensions.eight_bit_mime:
            return content
        signers = self._live.snapshot.signers(recipient.message.tenant_id, recipient.message.author_domain)
        plain = await asyncio.to_thread(_seven_bit, content, frozenset({recipient.message.author_domain}))
        return await self._signing.sign(plain, signers, time.time()) + plain

    def _return_path(self, recipient: Recipient) -> str | None:
        message = recipient.message
        if message.return_path is None:
            return None
        local = self._return_paths.local_part(recipient.id, stamp_at(message.accepted_at, time.time()))
        state = self._domains.states.get((message.tenant_id, message.author_domain))
        if state is not None and state.return_path == "OK":
            return f"{local}@psrp.{message.author_domain}"
        return f"{local}@{self._live.snapshot.settings.return_path_host}"

    def _keeps(self, *, failed: bool) -> bool:
        """Return whether the conversation of an attempt that came out so is kept."""
        settings = self._live.snapshot.settings
        wanted = settings.delivery.transcripts
        return (wanted == "all" or (wanted == "failures" and failed)) and settings.retention.transcripts_s > 0

    async def _try(
        self, candidate: Candidate, plan: Plan, source: Source | None, said: list[Entry]
    ) -> Session | Failure | Reply:
        timeouts = self._live.snapshot.settings.delivery.timeouts
        permit = None if plan.route is not None else self._permit()
        target = self._target(candidate, plan.route, source)
        if candidate.demand.testing and target.tls != "none":
            strict = await connect(replace(target, tls="required", verify=True), timeouts, permit=permit, said=said)
            self._count(plan, candidate, strict)
            if not _lacks_tls(strict):
                return strict
            session = await connect(target, timeouts, permit=permit, said=said)
        else:
            session = await connect(target, timeouts, permit=permit, said=said)
            if target.tls != "none":
                self._count(plan, candidate, session)
        if not _lacks_tls(session):
            return session
        clear = target.in_clear()
        if clear is None:
            return explain(session, candidate.demand, plan.domain)
        broken = session.detail
        session = await connect(clear, timeouts, permit=permit, said=said)
        if isinstance(session, Session):  # else it is the host that is in trouble, not its TLS
            until = time.time() + CLEAR_TEXT_S
            self.clear_text_until[candidate.host] = until
            self.on_tls_broken(candidate.host, until)
            log.warning("tls_broken", host=candidate.host, reason=broken)
        return session

    def _count(self, plan: Plan, candidate: Candidate, outcome: Session | Failure | Reply) -> None:
        """Count how TLS came out; what ended before it or for another reason is not for reports (RFC 8460 §4)."""
        demand = candidate.demand
        if _lacks_tls(outcome):
            result = outcome.tls
        elif isinstance(outcome, Session):
            result = TlsResult.STARTTLS_NOT_SUPPORTED if outcome.tls is None else None
        else:
            return
        if demand.testing and not demand.listed:
            result = TlsResult.VALIDATION_FAILURE
        if plan.domain and not demand.requiretls:  # what a message demands is not the domain's policy
            counts = self._peer_tls.counts
            counts.add(plan.domain, candidate.host, candidate.address, demand.policy, result, plan.sts)

    def _permit(self) -> Callable[[str], str | None]:
        """Return the check of an address at connect time: what a resolver says cannot be trusted."""
        allowed = routing.parse_networks(self._live.snapshot.settings.delivery.allow_destinations)
        return lambda address: routing.forbidden(address, allowed, self._own_addresses)

    def _target(self, candidate: Candidate, route: Route | None, source: Source | None) -> Target:
        snapshot = self._live.snapshot
        settings = snapshot.settings
        demand = candidate.demand
        tls = demand.tls
        if route is None and tls == "optional" and self.clear_text_until.get(candidate.host, 0.0) > time.time():
            tls = "none"
        if source is None and route is not None:
            ours = [one for one in self._sources.of("") if family_of(one.address) == family_of(candidate.address)]
            source = random.choice(ours) if ours else None  # noqa: S311 -- spreads load, hides nothing
        return Target(
            host=candidate.host,
            address=candidate.address,
            port=candidate.port,
            helo=settings.hostname if source is None else source.hostname or settings.hostname,
            tls=tls,
            verify=demand.verify,
            tlsa=demand.tlsa,
            tlsa_names=demand.names,
            requiretls=demand.requiretls,
            implicit_tls=route is not None and candidate.port == SUBMISSIONS,
            source_address=None if source is None else source.address,
            username=route.username if route is not None else "",
            secret=(snapshot.reveal(route.secret) or "") if route is not None and route.secret else "",
        )


def requires_tls(destination: str) -> bool:
    """Return whether a destination is of mail that demands REQUIRETLS."""
    return destination.startswith(routing.REQUIRETLS)


def _lacks_requiretls(outcome: Failure | Reply) -> bool:
    kinds = {FailureKind.NO_REQUIRETLS, FailureKind.ENCRYPTION_NEEDED}
    return isinstance(outcome, Failure) and outcome.kind in kinds


def _lacks_tls(outcome: Session | Failure | Reply) -> TypeGuard[Failure]:
    """Return whether the conversation ended because TLS did not come about."""
    return isinstance(outcome, Failure) and outcome.kind is FailureKind.TLS


def _by(message: Message, now: float) -> tuple[int, str] | None:
    """Return what is left of the message's time, in whole seconds, for a peer that knows RFC 2852.

    A peer that does not gets the message all the same, where §4.1.4 would have one of mode R returned: hardly any
    host offers the extension, and who takes a message for its recipient has delivered it as far as a relay can see.
    """
    if message.expires_at is not None:
        return int(message.expires_at - now), "R"
    return None if message.tell_at is None else (int(message.tell_at - now), "N")


def _seven_bit(content: bytes, own_domains: frozenset[str]) -> bytes:
    return to_seven_bit(strip_signatures(content, own_domains))
