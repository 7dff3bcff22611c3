"""Where a destination's mail goes now: hosts in their order, their addresses, and what TLS each must show."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import structlog

from arkrelay.config.live import Live
from arkrelay.model.delivery import Route
from arkrelay.model.dns import AddressAnswer, MxHost
from arkrelay.model.peertls import Demand, StsPolicy, TlsPolicy
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy import route as routing
from arkrelay.policy.providers import Providers
from arkrelay.relay.peertls import PeerTls
from arkrelay.relay.sources import Sources
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of one host that may take mail for a destination."""

    host: str
    address: str
    port: int
    demand: Demand = field(default_factory=Demand)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a destination's mail goes now; ``site`` is what connections are limited by."""

    site: str
    candidates: tuple[Candidate, ...]
    route: Route | None = None
    domain: str = ""  # whose policies made the demands; empty for a route
    sts: StsPolicy | None = None
    pool: str = ""  # of our addresses, from one of which it leaves


class Planner:
    """Asks DNS and the policies; connects to nobody."""

    def __init__(
        self, live: Live, resolver: Resolver, peer_tls: PeerTls, own_addresses: frozenset[str], sources: Sources
    ) -> None:
        self._live = live
        self._resolver = resolver
        self._peer_tls = peer_tls
        self._own_addresses = own_addresses
        self._sources = sources
        self._providers_of = live.snapshot.settings
        self._providers = Providers(self._providers_of.delivery, self._providers_of.provider)

    @property
    def providers(self) -> Providers:
        """The providers as the configuration in force has them."""
        settings = self._live.snapshot.settings
        if self._providers_of is not settings:
            self._providers_of, self._providers = settings, Providers(settings.delivery, settings.provider)
        return self._providers

    async def plan(self, destination: str) -> Plan | Failure:
        """Return the hosts and addresses to try for ``destination``, or why there are none."""
        settings = self._live.snapshot.settings
        mark, pool, destination = routing.split(destination)
        route = next((route for route in settings.route if f"route:{route.host.lower()}" == destination), None)
        if route is not None:
            return await self.plan_route(route, requiretls=mark == routing.REQUIRETLS)
        if destination.startswith(routing.TO_ROUTE):
            return Failure(FailureKind.RESOLVER, Stage.RESOLVE, f"no [[route]] leads to {destination[6:]} any more")
        # at the same time, so that a policy costs no wait of its own
        answer, sts = await asyncio.gather(self._resolver.mx(destination), self._sts(destination, mark))
        if isinstance(answer, Failure):
            return answer
        dice = random.SystemRandom()
        hosts = routing.order_hosts(answer, frozenset({settings.hostname, settings.return_path_host}), dice)
        if isinstance(hosts, Failure):
            return hosts
        resolved, failures = await self._resolve(hosts, self._sources.families(pool))
        if not resolved:
            return routing.no_addresses(destination, answer, failures)
        secure = [(host.host, answer.secure and found.secure) for host, found in resolved]
        demands, refused = await self._demands(destination, secure, sts, mark)
        usable = [(host, found.addresses) for host, found in resolved if host.host in demands]
        if not usable:
            return next((one for one in refused if one.kind is FailureKind.TLS), refused[0])
        allowed = routing.parse_networks(settings.delivery.allow_destinations)
        targets = routing.choose_targets(usable, allow=allowed, own=self._own_addresses, dice=dice)
        if isinstance(targets, Failure):
            return targets
        port = settings.delivery.port
        candidates = tuple(Candidate(one.host, one.address, port, demands[one.host]) for one in targets)
        return Plan(self.providers.site_of(hosts), candidates, None, destination, sts, pool)

    async def _resolve(
        self, hosts: Sequence[MxHost], families: tuple[int, ...]
    ) -> tuple[list[tuple[MxHost, AddressAnswer]], list[Failure]]:
        """Return the addresses of the hosts, looked up at once, and the failures of those that have none."""
        answers = await asyncio.gather(*(self._resolver.addresses(host.host, families) for host in hosts))
        resolved: list[tuple[MxHost, AddressAnswer]] = []
        failures: list[Failure] = []
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, Failure):
                failures.append(answer)
            else:
                resolved.append((host, answer))
        return resolved, failures

    async def plan_route(self, route: Route, *, requiretls: bool = False) -> Plan | Failure:
        """Return the addresses of a smarthost; it is known by whoever runs it, so no policy of DNS is asked."""
        host, _, port = route.host.rpartition(":")
        host = host.strip("[]")
        try:
            addresses: tuple[str, ...] = (str(ip_address(host)),)
        except ValueError:
            found = await self._resolver.addresses(host, self._sources.families(""))
            if isinstance(found, Failure):
                # Our own smarthost is missing: our trouble, not the recipient's.
                return Failure(FailureKind.RESOLVER, Stage.RESOLVE, f"smarthost {host}: {found.detail}")
            addresses = found.addresses
        required = route.tls == "required"
        demand = Demand(policy=TlsPolicy.ROUTE if required else TlsPolicy.NONE, tls=route.tls, verify=required)
        if requiretls:  # the admin named the host, so nobody else has to vouch for it
            demand = replace(demand, policy=TlsPolicy.REQUIRETLS, tls="required", verify=True, requiretls=True)
        candidates = tuple(Candidate(host, one, int(port), demand) for one in addresses[: routing.MAX_ADDRESSES])
        return Plan(route.host.lower(), candidates, route)

    async def _sts(self, domain: str, mark: str) -> StsPolicy | None:
        return None if mark == routing.ANY_TLS else await self._peer_tls.sts(domain)

    async def _demands(
        self, domain: str, hosts: Sequence[tuple[str, bool]], sts: StsPolicy | None, mark: str
    ) -> tuple[dict[str, Demand], list[Failure]]:
        """Return what each host must show, and why the others get no mail for ``domain``.

        ``hosts`` says of each whether DNSSEC vouches for it.
        """
        found = await asyncio.gather(
            *(
                self._peer_tls.demand(
                    host,
                    domain,
                    sts,
                    secure=secure,
                    requiretls=mark == routing.REQUIRETLS,
                    any_tls=mark == routing.ANY_TLS,
                    encrypted=self.providers.demands_tls(host),
                )
                for host, secure in hosts
            )
        )
        demands: dict[str, Demand] = {}
        refused: list[Failure] = []
        for (host, _), demand in zip(hosts, found, strict=True):
            if isinstance(demand, Failure):
                refused.append(demand)
                log.info("host_refused", host=host, domain=domain, reason=str(demand))
            else:
                demands[host] = demand
        return demands, refused
