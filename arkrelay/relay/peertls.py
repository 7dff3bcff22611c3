"""What TLS each destination demands, kept fresh; and what became of the sessions, counted.

A policy in force is in memory and in the database, so that an attacker who blocks DNS or the policy host after a
restart gains nothing. It is fetched when DNS names an id that we do not have, and again each day while it is in use;
a fetch that fails leaves what was there (RFC 8461 §3.3, §5.1).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.model.peertls import Demand, StsPolicy, Tlsa, TlsPolicy, TlsResult
from arkrelay.model.reply import Failure, FailureKind
from arkrelay.policy import mtasts
from arkrelay.policy.dane import usable
from arkrelay.policy.peertls import demand_of, requiring, unfit
from arkrelay.policy.route import match_tls_rule, parse_networks
from arkrelay.relay.tlscounts import TlsCounts
from arkrelay.store import peertls as rows
from arkrelay.store.database import Store
from arkrelay.wire.dns import Resolver
from arkrelay.wire.dnscache import DnsCache
from arkrelay.wire.fetch import Fetcher, FetchError

log = structlog.get_logger()

PATH = "/.well-known/mta-sts.txt"  # RFC 8461 §3.2
AGAIN_S = 300.0  # RFC 8461 §3.3: after a failed fetch no other for 5 minutes
FETCHED_S = 1.0  # those who asked at the same time share one fetch


@dataclass(frozen=True, slots=True)
class _NotFetched:
    reason: str


class PeerTls:
    """The policies of recipient domains. ``counts`` holds what came of them."""

    def __init__(
        self,
        store: Store,
        live: Live,
        resolver: Resolver,
        fetcher: Fetcher,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._live = live
        self._resolver = resolver
        self._fetcher = fetcher
        self._clock = clock
        self._policies: dict[str, StsPolicy] = {}
        self._fetches: DnsCache[tuple[str, str], StsPolicy | _NotFetched] = DnsCache(clock)
        self._tasks = Tasks()
        self.counts = TlsCounts(store)

    async def load(self) -> None:
        """Take over the policies that are in force."""
        self._policies = await self._store.read(lambda db: rows.policies(db, self._clock()))

    async def close(self) -> None:
        """End fetches under way, and write the counters."""
        await self._tasks.cancel()
        await self._fetches.close()
        await self.counts.write()

    async def sts(self, domain: str) -> StsPolicy | None:
        """Return the MTA-STS policy of ``domain`` that is in force, or None; in most cases one look into a cache."""
        if not self._live.snapshot.settings.delivery.mta_sts:
            return None
        now = self._clock()
        kept = self._policies.get(domain)
        if kept is not None and kept.expires_at <= now:
            del self._policies[domain]
            kept = None
        texts = await self._resolver.txt(f"_mta-sts.{domain}")
        # no record and no answer are the same here: neither ends a policy that we have (RFC 8461 §3.1, §8.3)
        id_ = None if isinstance(texts, Failure) else mtasts.parse_record(texts)
        if id_ is None or (kept is not None and kept.id == id_):
            if kept is not None and mtasts.wants_refresh(kept, now) and self._known_failure(domain, kept.id) is None:
                self._tasks.spawn(f"policy of {domain}", self._fetch(domain, kept.id))
            return kept
        fetched = await self._fetch(domain, id_)
        if isinstance(fetched, StsPolicy):
            return fetched
        if kept is None:
            self.counts.not_fetched(domain)
        return kept

    async def demand(
        self,
        host: str,
        domain: str,
        sts: StsPolicy | None,
        *,
        secure: bool,
        requiretls: bool = False,
        any_tls: bool = False,
        encrypted: bool = False,
    ) -> Demand | Failure:
        """Return what this host must show for mail to ``domain``, or why it gets none; the latter is counted.

        ``secure``: DNSSEC vouches for the domain's MX records and the host's addresses. Without that no TLSA record
        would prove anything, and none is asked for (RFC 7672 §2.2.1, §2.2.2). ``requiretls`` and ``any_tls`` are what
        the message says itself; the latter leaves nothing but our own rules (RFC 8689 §4.1). ``encrypted``: the
        provider has offered TLS for years, and clear text is never sent to it.
        """
        settings = self._live.snapshot.settings
        rule = match_tls_rule(domain, settings.tls_policy)
        wanted = rule.require if rule else "encrypted" if encrypted else ""
        found: Demand | Failure
        asks = secure and settings.delivery.dane != "off" and not any_tls
        tlsa = await self._tlsa(host) if asks else None
        found = tlsa if isinstance(tlsa, Failure) else demand_of(host, domain, sts=sts, tlsa=tlsa, rule=wanted)
        if requiretls and isinstance(found, Demand):
            named = sts is not None and sts.mode != "none" and mtasts.listed(host, sts)
            found = requiring(found, host, domain, proved=secure or named or host == domain)
        elif requiretls and isinstance(found, Failure) and found.tls is not TlsResult.DNSSEC_INVALID:
            found = replace(found, kind=FailureKind.NO_REQUIRETLS)  # a failed look-up alone may pass
        elif isinstance(found, Failure):
            self.counts.add(domain, host, "", found.policy, found.tls, sts)
        return found

    async def _tlsa(self, host: str) -> tuple[Tlsa, ...] | Failure | None:
        """Return the usable TLSA records of a host, None where there are none at all, or why nobody knows.

        A look-up that fails where all the others were secure is what an attacker would do, so the host is passed
        over (RFC 7672 §2.1.2). A name of MX that is an alias has the records of that name itself, not of its target.
        """
        answer = await self._resolver.tlsa(host, self._live.snapshot.settings.delivery.port)
        if isinstance(answer, Failure):
            detail = f"its DANE records are not known: {answer.detail}"
            return unfit(detail, TlsResult.DNSSEC_INVALID, TlsPolicy.DANE)
        return usable(answer.records) if answer.secure and answer.records else None

    def _known_failure(self, domain: str, id_: str) -> _NotFetched | None:
        known = self._fetches.peek((domain, id_))
        return known if isinstance(known, _NotFetched) else None

    async def _fetch(self, domain: str, id_: str) -> StsPolicy | _NotFetched:
        """Return the policy as it is published now, kept and in force, or why there is none."""
        return await self._fetches.get((domain, id_), lambda: self._fetch_now(domain, id_))

    async def _fetch_now(self, domain: str, id_: str) -> tuple[StsPolicy | _NotFetched, float]:
        delivery = self._live.snapshot.settings.delivery
        try:
            body = await self._fetcher.text(
                f"mta-sts.{domain}",
                PATH,
                port=delivery.mta_sts_port,
                allow=parse_networks(delivery.allow_destinations),
            )
            policy = mtasts.parse_policy(body, id_, self._clock())
        except (FetchError, ValueError) as error:
            log.warning("mta_sts_not_fetched", domain=domain, id=id_, reason=str(error))
            return _NotFetched(str(error)), AGAIN_S
        self._policies[domain] = policy
        try:
            await self._store.write(lambda db: rows.save_policy(db, domain, policy))
        except StoreError as error:  # in force it is all the same, until we stop
            log.warning("mta_sts_not_kept", domain=domain, error=str(error))
        log.info("mta_sts_fetched", domain=domain, id=id_, mode=policy.mode, mx=policy.mx, max_age_s=policy.max_age_s)
        return policy, FETCHED_S
