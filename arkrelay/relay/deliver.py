"""One destination at a time: plan, connect, send; what the peer does is reported, never decided, here.

``Courier.connect`` walks the hosts of a destination in the order of ``policy.route`` until one takes the
conversation; only when all have failed is that one failed attempt (RFC 5321 §5.1). ``Courier.send`` starts one
transaction for one recipient, with its own return path, and journals the phases: ``talking`` when it starts,
``dot`` just before the final dot is written, ``taken`` when the peer has answered 2xx.

Broken opportunistic TLS is remembered per host for three days, during which that host gets clear text; a route
that demands TLS is deferred instead.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

import structlog

from arkrelay.config.live import Live
from arkrelay.mail.sevenbit import to_seven_bit
from arkrelay.mail.strip import strip_signatures
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.attempt import Attempt
from arkrelay.model.dns import MxHost
from arkrelay.model.message import Envelope, Recipient
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.settings import Route
from arkrelay.policy import route as routing
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.sign import Signing
from arkrelay.store.journal import Journal
from arkrelay.wire.dns import Resolver
from arkrelay.wire.smtp import Session, Target, Transaction, connect

log = structlog.get_logger()

SUBMISSIONS = 465  # implicit TLS (RFC 8314 §3.3)
CLEAR_TEXT_S = 3 * 86400.0  # how long a host with broken TLS gets clear text


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one host that may take mail for a destination."""

    host: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a destination's mail goes now; ``site`` is what connections are limited by."""

    site: str
    candidates: tuple[Candidate, ...]
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class NotConnected:
    """No host took the conversation: what the last one did."""

    result: Reply | Failure
    candidate: Candidate | None
    seconds: float


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
        own_addresses: frozenset[str],
        *,
        ipv6: bool,
    ) -> None:
        self._live = live
        self._resolver = resolver
        self._signing = signing
        self._journal = journal
        self._return_paths = return_paths
        self._domains = domains
        self._own_addresses = own_addresses
        self._ipv6 = ipv6
        self.clear_text_until: dict[str, float] = {}  # by MX host, loaded from the store at start
        self.on_tls_broken: Callable[[str, float], None] = lambda _host, _until: None

    async def plan(self, destination: str) -> Plan | Failure:
        """Return the hosts and addresses to try for ``destination``, or why there are none."""
        settings = self._live.snapshot.settings
        families = routing.families(settings.delivery.ip_family, global_ipv6=self._ipv6)
        route = next((route for route in settings.route if f"route:{route.host.lower()}" == destination), None)
        if route is not None:
            return await self._plan_route(route, families)
        if destination.startswith("route:"):
            return Failure(FailureKind.RESOLVER, Stage.RESOLVE, f"no [[route]] leads to {destination[6:]} any more")
        answer = await self._resolver.mx(destination)
        if isinstance(answer, Failure):
            return answer
        dice = random.SystemRandom()
        hosts = routing.order_hosts(answer, frozenset({settings.hostname, settings.return_path_host}), dice)
        if isinstance(hosts, Failure):
            return hosts
        resolved, failures = await self._resolve(hosts, families)
        if not resolved:
            return routing.no_addresses(destination, answer, failures)
        allowed = routing.parse_networks(settings.delivery.allow_destinations)
        targets = routing.choose_targets(resolved, allow=allowed, own=self._own_addresses, dice=dice)
        if isinstance(targets, Failure):
            return targets
        candidates = tuple(Candidate(target.host, target.address, settings.delivery.port) for target in targets)
        return Plan(routing.site_of(hosts), candidates)

    async def connect(self, plan: Plan) -> Session | NotConnected:
        """Return a session with the first host that takes one, past EHLO, STARTTLS and AUTH."""
        started = time.monotonic()
        result: Reply | Failure = Failure(FailureKind.NO_ADDRESS, Stage.CONNECT, "no address to connect to")
        last: Candidate | None = None
        for candidate in plan.candidates:
            last = candidate
            session = await self._try(candidate, plan.route)
            if isinstance(session, Session):
                return session
            result = session
            log.info("host_failed", host=candidate.host, address=candidate.address, reply=str(result))
        return NotConnected(result, last, time.monotonic() - started)

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
        journal = self._journal
        slot = journal.begin(recipient.id)
        try:
            future = session.send(envelope, content, on_dot=lambda: journal.dot(slot))
        except ValueError:  # a bug of ours, which the caller defers; nothing was sent
            journal.end(slot)
            raise

        def ended(future: asyncio.Future[Transaction]) -> None:
            transaction = future.result()
            result = transaction.results[0]
            if isinstance(result, Reply) and 200 <= result.code < 300:
                journal.taken(slot)
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
            size_bytes=size_bytes,
            ret=message.ret,
            envid=message.envid,
            notify=(recipient.notify,),
            orcpt=(recipient.orcpt,),
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
        local = self._return_paths.local_part(recipient.id, message.accepted_at)
        state = self._domains.states.get((message.tenant_id, message.author_domain))
        if state is not None and state.return_path == "OK":
            return f"{local}@psrp.{message.author_domain}"
        return f"{local}@{self._live.snapshot.settings.return_path_host}"

    async def _resolve(
        self, hosts: Sequence[MxHost], families: tuple[int, ...]
    ) -> tuple[list[tuple[MxHost, Sequence[str]]], list[Failure]]:
        """Return the addresses of the hosts, looked up at once, and the failures of those that have none."""
        answers = await asyncio.gather(*(self._resolver.addresses(host.host, families) for host in hosts))
        resolved: list[tuple[MxHost, Sequence[str]]] = []
        failures: list[Failure] = []
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, Failure):
                failures.append(answer)
            else:
                resolved.append((host, answer.addresses))
        return resolved, failures

    async def _plan_route(self, route: Route, families: tuple[int, ...]) -> Plan | Failure:
        host, _, port = route.host.rpartition(":")
        host = host.strip("[]")
        try:
            addresses: tuple[str, ...] = (str(ip_address(host)),)
        except ValueError:
            found = await self._resolver.addresses(host, families)
            if isinstance(found, Failure):
                # Our own smarthost is missing: our trouble, not the recipient's.
                return Failure(FailureKind.RESOLVER, Stage.RESOLVE, f"smarthost {host}: {found.detail}")
            addresses = found.addresses
        candidates = tuple(Candidate(host, address, int(port)) for address in addresses[: routing.MAX_ADDRESSES])
        return Plan(route.host, candidates, route)

    async def _try(self, candidate: Candidate, route: Route | None) -> Session | Failure | Reply:
        settings = self._live.snapshot.settings
        target = self._target(candidate, route)
        permit = None if route is not None else self._permit()
        session = await connect(target, settings.delivery.timeouts, permit=permit)
        if isinstance(session, Failure) and session.kind is FailureKind.TLS:
            clear = target.in_clear()
            if clear is None:
                return session
            broken = session.detail
            session = await connect(clear, settings.delivery.timeouts, permit=permit)
            if isinstance(session, Session):  # else it is the host that is in trouble, not its TLS
                until = time.time() + CLEAR_TEXT_S
                self.clear_text_until[candidate.host] = until
                self.on_tls_broken(candidate.host, until)
                log.warning("tls_broken", host=candidate.host, reason=broken)
        return session

    def _permit(self) -> Callable[[str], str | None]:
        """Return the check of an address at connect time: what a resolver says cannot be trusted."""
        allowed = routing.parse_networks(self._live.snapshot.settings.delivery.allow_destinations)
        return lambda address: routing.forbidden(address, allowed, self._own_addresses)

    def _target(self, candidate: Candidate, route: Route | None) -> Target:
        snapshot = self._live.snapshot
        settings = snapshot.settings
        tls = route.tls if route is not None else "optional"
        if route is None and self.clear_text_until.get(candidate.host, 0.0) > time.time():
            tls = "none"
        sources = [a for a in settings.delivery.source_addresses if (":" in a) == (":" in candidate.address)]
        return Target(
            host=candidate.host,
            address=candidate.address,
            port=candidate.port,
            helo=settings.hostname,
            tls=tls,
            verify=route is not None and route.tls == "required",
            implicit_tls=route is not None and candidate.port == SUBMISSIONS,
            source_address=random.choice(sources) if sources else None,  # noqa: S311 -- spreads load, hides nothing
            username=route.username if route is not None else "",
            secret=(snapshot.reveal(route.secret) or "") if route is not None and route.secret else "",
        )


def _seven_bit(content: bytes, own_domains: frozenset[str]) -> bytes:
    return to_seven_bit(strip_signatures(content, own_domains))
